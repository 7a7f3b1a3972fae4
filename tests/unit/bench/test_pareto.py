"""The front against its definition, ties and values that are none; and how sure a place on it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motedge.bench.front_share import front_shares
from motedge.bench.pareto import pareto_front

# Few values, so that ties are the rule
ROWS = st.integers(1, 3).flatmap(lambda n: st.lists(st.lists(st.integers(0, 3), min_size=n, max_size=n), max_size=12))


@given(ROWS)
def test_it_is_what_no_other_beats(rows: list[list[int]]) -> None:
    front = pareto_front(rows)
    for row, mine in zip(rows, front):
        beaten = any(all(a <= b for a, b in zip(o, row)) and o != row for o in rows)
        assert mine == (not beaten)
    assert not rows or any(front)


@given(ROWS, st.randoms())
def test_order_does_not_matter(rows: list[list[int]], random: object) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert pareto_front([rows[place] for place in order]) == [pareto_front(rows)[place] for place in order]


def test_ties() -> None:
    # Equal in both: on it together. Equal in one and worse in the other: beaten
    assert pareto_front([(1, 5), (1, 5), (1, 6), (2, 5), (3, 1)]) == [True, True, False, False, True]
    assert pareto_front([(1, 1), (1, 1), (1, 1)]) == [True] * 3
    assert pareto_front([]) == []


def test_what_is_no_number_is_not_on_it_and_beats_nobody() -> None:
    assert (
        pareto_front([(float("nan"), 0), (1, 1), (float("inf"), 0), (-float("inf"), 0)]) == [False, True] + [False] * 2
    )


def test_a_third_cost_adds_to_the_front() -> None:
    rows = [(1.0, 3.0), (2.0, 2.0), (2.5, 2.5)]
    assert pareto_front(rows) == [True, True, False]
    assert pareto_front([(*row, cost) for row, cost in zip(rows, (9, 9, 1))]) == [True] * 3


def test_shares_tell_chance_from_what_is_sure() -> None:
    random = np.random.default_rng(3)
    turns = lambda middle, spread: random.normal(middle, spread, (6, 5)).tolist()  # noqa: E731
    # Two equal cells but for chance; one far behind in both; one that is exact
    shares = front_shares([turns(10, 1), turns(10, 1), turns(30, 1), turns(40, 1)], [0.1, 0.1, 0.2, 0.0])
    assert None not in shares
    known = [share for share in shares if share is not None]
    assert known[2] == 0 and known[3] == 1
    assert known[0] + known[1] == pytest.approx(1, abs=0.1) and min(known[:2]) > 0


def test_drift_that_hits_all_alike_leaves_the_front_alone() -> None:
    """A machine that is twice as slow in half of the turns: the order within each turn is what counts."""
    slow = [1, 2, 1, 2, 1, 2]
    turns = [[[middle * factor * jitter for jitter in (0.99, 1, 1.01)] for factor in slow] for middle in (10.0, 11.0)]
    assert front_shares(turns, [0.1, 0.1]) == [1.0, 0.0]


def test_too_few_turns_say_nothing() -> None:
    assert front_shares([[[1.0]], [[2.0]]], [0.0, 0.0]) == [None, None]
    assert front_shares([], []) == []
    for count in (1, 2):
        assert front_shares([[[1.0]] * count], [0.0]) == [None]


def test_equal_cells_share_the_front_in_every_drawing() -> None:
    assert front_shares([[[1.0]] * 3, [[1.0]] * 3], [0.5, 0.5]) == [1.0, 1.0]
    assert list(itertools.chain(front_shares([[[1.0]] * 3, [[1.0]] * 3], [0.5, 0.4]))) == [0.0, 1.0]
