from __future__ import annotations

import numpy as np
import pytest

from motedge.errors import UsageError
from motedge.runtime.guidance import GuidancePlan, combine
from motedge.runtime.schedule import FlowSchedule


def test_forwards_of_the_policies() -> None:
    """Edge guides at t = 999 alone: 5 forwards; Nano at all four steps: 8."""
    timesteps = FlowSchedule(4, 5.0).timesteps
    assert GuidancePlan(3.0, (960, 1001)).forwards(timesteps) == 5
    assert GuidancePlan(3.0).forwards(timesteps) == 8
    assert GuidancePlan(1.0).forwards(timesteps) == 4
    assert GuidancePlan(3.0, (0, 1)).forwards(timesteps) == 4


def test_the_interval_is_open() -> None:
    plan = GuidancePlan(3.0, (937, 999))
    assert [plan.active(t) for t in (937, 938, 998, 999)] == [False, True, True, False]


def test_a_scale_of_zero_still_needs_both() -> None:
    assert GuidancePlan(0.0).active(500)


def test_combine() -> None:
    random = np.random.RandomState(0)
    cond, uncond = (random.standard_normal((3, 4)).astype(np.float32) for _ in range(2))
    out = np.empty_like(cond)
    assert combine(cond, uncond, 3.0, out) is out
    np.testing.assert_allclose(out, uncond + 3 * (cond - uncond), rtol=1e-6)


def test_combine_at_scale_one_is_the_conditional_velocity() -> None:
    cond, uncond = np.float32([1, 2]), np.float32([0.5, 4])
    np.testing.assert_array_equal(combine(cond, uncond, 1.0, np.empty(2, np.float32)), cond)


@pytest.mark.parametrize(
    ("scale", "interval", "message"),
    [
        (float("nan"), None, "guidance scale"),
        (float("inf"), None, "guidance scale"),
        (3.0, (1001.0, 960.0), "interval is empty"),
        (3.0, (960.0, 960.0), "interval is empty"),
        (3.0, (0.0, float("nan")), "two finite numbers"),
        (3.0, (1.0, 2.0, 3.0), "two finite numbers"),
    ],
)
def test_refuses(scale: float, interval, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GuidancePlan(scale, interval)
