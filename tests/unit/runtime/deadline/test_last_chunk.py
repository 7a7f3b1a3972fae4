"""What is left of a chunk, and the fields of a chunk that say so."""

from __future__ import annotations

import dataclasses
import json

import pytest
from deadline_simulation import RATE_HZ, ROWS, make_chunk
from hypothesis import given
from hypothesis import strategies as st

from motedge.errors import InternalError
from motedge.runtime.deadline.last_chunk import LastChunk
from motedge.runtime.policy.chunk import FRESH, HELD


def test_nothing_there() -> None:
    assert LastChunk().rest(5.0) is None and not LastChunk().covers(5.0)


def test_rows_pass() -> None:
    last = LastChunk()
    last.offer(make_chunk(3), 100.0)
    # Row 0 is due one period after the observation, and not given at that very moment
    for after_s, passed in ((0.0, 0), (0.9 / RATE_HZ, 0), (1.0 / RATE_HZ, 1), (1.5 / RATE_HZ, 1), (31.5 / RATE_HZ, 31)):
        rest = last.rest(100.0 + after_s + 1e-9)
        assert rest is not None and rest.kind == HELD and rest.first_row == passed
        assert rest.age_s == pytest.approx(after_s, abs=1e-6)
        assert rest.actions[:, 1].tolist() == list(range(passed, ROWS)) and (rest.actions[:, 0] == 3).all()
        assert rest.time_s[0] == pytest.approx((passed + 1) / RATE_HZ)
    assert last.rest(100.0 + ROWS / RATE_HZ) is None


@given(st.floats(0, 1e6), st.floats(0, 4), st.integers(1, 40), st.sampled_from([1.0, 10.0, 15.0, 29.97, 1000 / 3]))
def test_never_a_row_whose_time_has_passed(start_s: float, after_s: float, rows: int, rate_hz: float) -> None:
    last = LastChunk()
    last.offer(make_chunk(rows=rows, rate_hz=rate_hz), start_s)
    now_s = start_s + after_s
    rest = last.rest(now_s)
    due = [start_s + (index + 1) / rate_hz for index in range(rows)]
    ahead = [index for index, moment in enumerate(due) if moment > now_s]
    assert (rest is None) == (not ahead)
    if rest is not None:
        assert rest.actions[:, 1].tolist() == ahead and rest.first_row == ahead[0]


def test_the_latest_observation_wins() -> None:
    last = LastChunk()
    last.offer(make_chunk(1), 10.0)
    last.offer(make_chunk(2), 9.0)
    rest = last.rest(10.0)
    assert rest is not None and rest.actions[0, 0] == 1
    last.offer(make_chunk(3), 10.5)
    rest = last.rest(10.5)
    assert rest is not None and rest.actions[0, 0] == 3


def test_neither_side_sees_changes_of_the_other() -> None:
    last, chunk = LastChunk(), make_chunk(1)
    last.offer(chunk, 10.0)
    chunk.actions[:] = 99
    first = last.rest(10.0)
    assert first is not None
    first.actions[:] = 77
    second = last.rest(10.0)
    assert second is not None and second.actions[0, 0] == 1


def test_too_old() -> None:
    last = LastChunk(max_age_s=0.5)
    last.offer(make_chunk(), 10.0)
    assert last.covers(10.5) and not last.covers(10.51)


def test_a_held_chunk_says_so_everywhere() -> None:
    last = LastChunk()
    last.offer(make_chunk(), 10.0)
    rest = last.rest(10.7)
    assert rest is not None
    stored = json.loads(rest.to_json())
    assert (stored["kind"], stored["first_row"], stored["age_s"]) == ("held", 10, 0.7)
    table = rest.to_table().splitlines()
    assert table[0].startswith("HELD: what is left of the chunk of an observation 0.700 s ago; 10 rows")
    assert table[4].split()[:2] == ["11", "0.733"]
    fresh = json.loads(make_chunk().to_json())
    assert (fresh["kind"], fresh["first_row"], fresh["age_s"]) == ("fresh", 0, None)
    assert "HELD" not in make_chunk().to_table()


@pytest.mark.parametrize("wrong", [{"kind": "stale"}, {"first_row": 3}, {"kind": HELD, "first_row": -1}])
def test_contradictions_are_bugs(wrong: dict[str, object]) -> None:
    assert make_chunk().kind == FRESH
    with pytest.raises(InternalError, match="action chunk"):
        dataclasses.replace(make_chunk(), **wrong)  # type: ignore[arg-type]
