"""Held-out observations lie apart from those that calibrate."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import DataError
from motedge.quant.datasets.dataset import Moment
from motedge.quant.datasets.split import split_moments


def _moments(groups: int, length: int) -> list[Moment]:
    return [Moment(str(group), index) for group in range(groups) for index in range(length)]


@given(st.integers(20, 800), st.integers(1, 8), st.integers(1, 3), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_one_episode_is_cut_with_a_gap(length: int, calibration: int, held_out: int, seed: int) -> None:
    split = split_moments(_moments(1, length), calibration=calibration, held_out=held_out, seed=seed)
    assert (len(split.calibration), len(split.held_out)) == (calibration, held_out)
    gap = min(m.index for m in split.held_out) - max(m.index for m in split.calibration)
    assert gap >= max(1, round(0.05 * length))
    assert len(set(split.calibration) | set(split.held_out)) == calibration + held_out
    assert "one episode" in split.rule and "same scene" in split.rule
    assert split == split_moments(_moments(1, length), calibration=calibration, held_out=held_out, seed=seed)


@given(st.integers(2, 12), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_episodes_are_not_shared(groups: int, seed: int) -> None:
    split = split_moments(_moments(groups, 30), calibration=6, held_out=2, seed=seed)
    assert not {m.group for m in split.calibration} & {m.group for m in split.held_out}
    assert "other episodes" in split.rule


def test_nothing_held_out() -> None:
    split = split_moments(_moments(1, 5), calibration=5, held_out=0)
    assert (len(split.calibration), split.held_out) == (5, ())


@pytest.mark.parametrize(
    ("length", "message"), [(0, "is empty"), (3, "too small"), (6, "--observations")], ids=["empty", "tiny", "small"]
)
def test_too_little(length: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_moments(_moments(1, length), calibration=5, held_out=2)
