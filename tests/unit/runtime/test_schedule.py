"""Noise levels of the published modes, and schedules that can't be sampled."""

from __future__ import annotations

import numpy as np
import pytest

from motedge.errors import UsageError
from motedge.runtime.schedule import FlowSchedule

# steps, shift -> first sigmas, last sigmas, first t, last t
PUBLISHED = [
    (4, 5.0, (0.999800, 0.937265, 0.833055, 0.624687), (0.624687,), (999, 937, 833, 624), (624,)),
    (2, 5.0, (0.999800, 0.833055), (0.833055,), (999, 833), (833,)),
    (30, 10.0, (0.999900, 0.996461, 0.992802), (0.416406, 0.256213), (999, 996, 992), (416, 256)),
    (35, 10.0, (0.999900, 0.996965, 0.993871), (0.377109, 0.227092), (999, 996, 993), (377, 227)),
    (20, 12.0, (0.999917, 0.995546, 0.990735), (0.571156, 0.386847), (999, 995, 990), (571, 386)),
    (50, 3.0, (0.999666, 0.992907, 0.985963), (0.111008, 0.057637), (999, 992, 985), (111, 57)),
]


@pytest.mark.parametrize(("steps", "shift", "first", "last", "first_t", "last_t"), PUBLISHED)
def test_published_tables(steps, shift, first, last, first_t, last_t) -> None:
    schedule = FlowSchedule(steps, shift)
    assert schedule.sigmas.shape == (steps + 1,)
    assert schedule.sigmas[-1] == 0
    np.testing.assert_allclose(schedule.sigmas[: len(first)], first, atol=1e-6, rtol=0)
    np.testing.assert_allclose(schedule.sigmas[-1 - len(last) : -1], last, atol=1e-6, rtol=0)
    assert tuple(schedule.timesteps[: len(first_t)]) == first_t
    assert tuple(schedule.timesteps[-len(last_t) :]) == last_t
    assert schedule.timesteps.dtype == np.int64


def test_timesteps_are_truncated_not_rounded() -> None:
    schedule = FlowSchedule(4, 5.0)
    assert schedule.sigmas[3] * 1000 > 624.5
    assert schedule.timesteps[3] == 624


def test_linear_starts_below_one() -> None:
    assert FlowSchedule(4, 5.0, "linear").sigmas[0] == np.float32(1 - 1e-6)


def test_karras_ignores_the_shift() -> None:
    a, b = FlowSchedule(35, 1.0, "karras"), FlowSchedule(35, 9.0, "karras")
    assert np.array_equal(a.sigmas, b.sigmas)
    assert a.sigmas[0] == np.float32(200 / 201)


def test_equal_schedules_are_equal() -> None:
    assert FlowSchedule(4, 5.0) == FlowSchedule(4, 5.0)
    assert FlowSchedule(4, 5.0) != FlowSchedule(4, 3.0)
    assert len({FlowSchedule(4, 5.0), FlowSchedule(4, 5.0)}) == 1


@pytest.mark.parametrize(
    ("steps", "shift", "spacing", "message"),
    [
        (0, 5.0, "native", "number of steps"),
        (1001, 5.0, "native", "number of steps"),
        (4, 0.0, "native", "flow shift"),
        (4, float("nan"), "native", "flow shift"),
        (4, float("inf"), "native", "flow shift"),
        (4, 5.0, "karas", "did you mean 'karras'"),
        (500, 1e9, "native", "two equal noise levels"),
    ],
)
def test_refuses(steps: int, shift: float, spacing: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FlowSchedule(steps, shift, spacing)
