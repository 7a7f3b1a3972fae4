"""Held-out observations lie apart from those that calibrate."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import DataError, UsageError
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
    between = gap - 1
    last = max(split.calibration)
    assert f"a gap of {between} frames after the last calibration frame {last.index}" in split.rule
    assert f"held-out frames {split.held_out[0].index} to {split.held_out[-1].index}" in split.rule
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


@pytest.mark.parametrize(
    ("lengths", "calibration", "held_out", "apart"),
    [((2, 100), 8, 2, {"0"}), ((100, 2), 8, 2, {"1"}), ((2, 5, 100), 102, 5, {"1"}), ((3, 3, 20), 18, 5, {"0", "1"})],
)
def test_uneven_episodes_are_told_apart_so_that_both_sides_fit(
    lengths: tuple[int, ...], calibration: int, held_out: int, apart: set[str]
) -> None:
    moments = [Moment(str(group), index) for group, length in enumerate(lengths) for index in range(length)]
    split = split_moments(moments, calibration=calibration, held_out=held_out)
    assert {moment.group for moment in split.held_out} <= apart
    assert not {moment.group for moment in split.calibration} & apart
    assert (len(set(split.calibration)), len(set(split.held_out))) == (calibration, held_out)


def test_episodes_that_can_not_be_told_apart() -> None:
    with pytest.raises(DataError, match="too small") as caught:
        split_moments(_moments(2, 10), calibration=12, held_out=2)
    assert "20 observations of 2 episodes, the longest of 10" in str(caught.value)


@pytest.mark.parametrize("numbers", [(0, 2), (-1, 2), (3, -1)])
def test_numbers_that_make_no_sense(numbers: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="numbers of observations"):
        split_moments(_moments(1, 50), calibration=numbers[0], held_out=numbers[1])


def test_another_seed_takes_other_moments() -> None:
    splits = {split_moments(_moments(1, 300), calibration=6, held_out=3, seed=seed).calibration for seed in range(4)}
    assert len(splits) == 4
