"""The envelope: nothing that comes in makes it break a limit, and what is allowed passes untouched."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from motedge.client import ActionEnvelope
from motedge.client.envelope_limits import EnvelopeLimits, FieldLimits
from motedge.errors import ContractError, UsageError

_DT_S = 1 / 15
_DROID_START = np.array([0.0, -0.6, 0.0, -2.2, 0.0, 1.6, 0.0, 0.0])


def _one(mode: str = "clamp", **changes: float) -> EnvelopeLimits:
    values = {"min": -1.0, "max": 1.0, "max_speed_per_s": 2.0, "max_acceleration_per_s2": 8.0, "max_jerk_per_s3": 160.0}
    return EnvelopeLimits("one", (FieldLimits("x", "rad", on_violation=mode, **{**values, **changes}),))


def _started(limits: EnvelopeLimits, *start: float) -> ActionEnvelope:
    envelope = ActionEnvelope(limits)
    envelope.reset(start)
    return envelope


def _check(limits: EnvelopeLimits, positions: NDArray[np.float64], times_s: NDArray[np.float64]) -> None:
    """Backward differences of what was given out, from rest, against the limits.

    Positions are doubles: each is off by half a last place at most, e. Differences carry that on and divide it by the
    time, which is all that is allowed beyond the limits.
    """
    h = times_s[:, None]
    value = positions
    error = np.finfo(float).eps * np.abs(positions).max(axis=0) * np.ones_like(positions)
    low, high = np.array([field.low for field in limits.fields]), np.array([field.high for field in limits.fields])
    assert (value >= low).all() and (value <= high).all()
    for key in ("max_speed_per_s", "max_acceleration_per_s2", "max_jerk_per_s3"):
        most = np.array([getattr(field, key) or math.inf for field in limits.fields])
        # At rest before the first action: a zero in front
        value = np.vstack([np.zeros_like(most), np.diff(value, axis=0) / h])
        error = np.vstack([np.zeros_like(most), 2 * (error[1:] + error[:-1]) / h])
        over = np.abs(value) - most * (1 + 4 * np.finfo(float).eps) - error
        assert over.max() <= 0, (key, np.unravel_index(over.argmax(), over.shape), over.max())


def _inputs(kind: str, draw: np.random.Generator, limits: EnvelopeLimits, last: NDArray[np.float64], step: int):
    """Actions of an adversary, float64 [fields]."""
    low = np.array([field.low for field in limits.fields])
    high = np.array([field.high for field in limits.fields])
    if kind == "corners":
        return np.where(draw.random(len(low)) < 0.5, low, high) * 3
    if kind == "walk":
        return last + draw.normal(0, 0.05, len(low))
    if kind == "chase":
        # Just out of reach in turn, which brings a careless limiter to its limit at full speed
        return last + (1 if (step // 17) % 2 else -1) * draw.uniform(0.05, 0.4)
    if kind == "huge":
        return draw.choice([-1e308, 1e308, 1e-308, 0.0], len(low))
    if kind == "broken":
        return np.where(draw.random(len(low)) < 0.1, draw.choice([math.nan, math.inf, -math.inf]), last)
    return draw.uniform(low, high)


_kinds = st.sampled_from(["corners", "walk", "chase", "huge", "broken", "uniform", "all"])
_timing = st.sampled_from(["even", "jitter", "wild", "fast"])


def _drive(envelope: ActionEnvelope, start: NDArray[np.float64], kind: str, timing: str, seed: int, steps: int) -> None:
    draw = np.random.default_rng(seed)
    envelope.reset(start)
    given_out, times_s = [start], []
    for step in range(steps):
        h = {
            "even": _DT_S,
            "jitter": _DT_S * draw.uniform(0.3, 3),
            "wild": 10 ** draw.uniform(-3.9, 1),
            "fast": 0.001,
        }[timing]
        now = kind if kind != "all" else draw.choice(["corners", "walk", "chase", "huge", "broken", "uniform"])
        verdict = envelope.apply(_inputs(now, draw, envelope.limits, given_out[-1], step), h)
        if verdict.kind == "held":
            envelope.reset(verdict.action)
            # From rest again
            _check(envelope.limits, np.array([*given_out, verdict.action]), np.array([*times_s, h]))
            given_out, times_s = [verdict.action], []
            continue
        given_out.append(verdict.action)
        times_s.append(h)
    if times_s:
        _check(envelope.limits, np.array(given_out), np.array(times_s))
    counters = envelope.counters
    assert counters.actions == steps
    assert counters.passed + counters.clamped + counters.rejected + counters.held == steps


@settings(max_examples=60, deadline=None)
@given(_kinds, _timing, st.integers(0, 2**32 - 1))
def test_droid_never_exceeds_a_limit(kind: str, timing: str, seed: int) -> None:
    _drive(ActionEnvelope.for_embodiment("droid_lerobot"), _DROID_START, kind, timing, seed, 120)


@settings(max_examples=120, deadline=None)
@given(
    st.floats(-2, 1),
    st.floats(-2, 1),
    st.floats(-2, 2),
    st.floats(-2, 4),
    st.sampled_from(["clamp", "reject", "hold"]),
    _kinds,
    _timing,
    st.integers(0, 2**32 - 1),
)
def test_no_limits_are_ever_exceeded(
    span: float, speed: float, acceleration: float, jerk: float, mode: str, kind: str, timing: str, seed: int
) -> None:
    """Any limits: jerk so low that it rules, ranges too narrow to turn around in, all modes."""
    limits = _one(
        mode,
        min=-(10.0**span),
        max=10.0**span,
        max_speed_per_s=10.0**speed,
        max_acceleration_per_s2=10.0**acceleration,
        max_jerk_per_s3=10.0**jerk,
    )
    _drive(ActionEnvelope(limits), np.zeros(1), kind, timing, seed, 300)


@pytest.mark.slow
@pytest.mark.parametrize("timing", ["even", "jitter", "wild", "fast"])
def test_thousands_of_steps_leave_no_drift(timing: str) -> None:
    _drive(ActionEnvelope.for_embodiment("droid_lerobot"), _DROID_START, "all", timing, 5, 20_000)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9))
def test_what_is_inside_every_limit_passes_bit_for_bit(seed: int, share: float) -> None:
    """A path whose differences use that share of each limit, made without the envelope's own code."""
    draw = random.Random(seed)
    envelope = _started(_one(), 0.0)
    most = (2.0 * share, 8.0 * share, 160.0 * share)
    p = v = a = 0.0
    for _ in range(200):
        wanted = draw.uniform(-1, 1) * most[1]
        # Towards the middle, well before the end of the range
        if abs(p) > 0.3 or abs(v) > most[0] / 2:
            wanted = -math.copysign(most[1], v if abs(v) > most[0] / 4 else p)
        a += min(max(wanted - a, -most[2] * _DT_S), most[2] * _DT_S)
        if abs(v + a * _DT_S) > most[0] or abs(p + v * _DT_S) > 0.6:
            return
        v += a * _DT_S
        p += v * _DT_S
        verdict = envelope.apply([p], _DT_S)
        assert verdict.passed, (verdict, p, v, a)
        assert verdict.action[0] == p


def test_a_jump_is_approached_as_fast_as_allowed_without_passing_it() -> None:
    envelope = _started(_one(max_jerk_per_s3=1e4), -0.9)
    positions = [envelope.apply([0.9], _DT_S).action[0] for _ in range(40)]
    assert max(positions) == positions[-1] == 0.9
    speeds = np.diff([-0.9, *positions]) / _DT_S
    assert speeds.max() == pytest.approx(2.0)
    # 1.8 rad at 2 rad/s and 8 rad/s2: 1.15 s, and three periods for the grid
    assert positions.index(0.9) <= math.ceil(1.15 / _DT_S) + 3
    # "position": at full speed it would not stop before the end of the range
    assert envelope.counters.by_field["x"].keys() <= {"acceleration", "speed", "position", "catching up"}


def test_a_moving_target_is_caught_up_with() -> None:
    """Behind a ramp after a jump, it joins the ramp rather than trail behind it."""
    envelope = _started(_one(), -0.9)
    behind = []
    for step in range(45):
        target = -0.9 + 0.5 * _DT_S * (step + 1) + (0.2 if step > 5 else 0.0)
        behind.append(target - envelope.apply([target], _DT_S).action[0])
    assert behind[6] > 0.05
    assert behind[-20:] == [0.0] * 20
    assert min(behind) >= -1e-12


def test_reject_drops_a_spike_whole_and_follows_again() -> None:
    limits = EnvelopeLimits("two", (*_one("reject").fields, FieldLimits("grip", "fraction", min=0.0, max=1.0)))
    envelope = _started(limits, 0.0, 0.0)
    kinds = []
    for step in range(12):
        spike = step == 4
        verdict = envelope.apply([0.9 if spike else 0.01 * (step + 1), 1.0], _DT_S)
        kinds.append(verdict.kind)
        assert verdict.action[1] == 1.0
        if spike:
            assert verdict.causes == {"x": "acceleration"}
    assert kinds[:4] == ["passed"] * 4
    assert kinds[4] == "rejected"
    assert kinds[-1] == "passed"
    assert verdict.action[0] == pytest.approx(0.12)


def test_hold_stands_until_reset() -> None:
    envelope = _started(_one("hold"), 0.0)
    for step in range(5):
        assert envelope.apply([0.02 * (step + 1)], _DT_S).passed
    assert envelope.apply([5.0], _DT_S).kind == "held"
    positions = [envelope.apply([0.1], _DT_S) for _ in range(10)]
    assert {verdict.kind for verdict in positions} == {"held"}
    assert envelope.held
    assert positions[-1].action[0] == positions[-2].action[0]
    envelope.reset(positions[-1].action)
    assert envelope.apply(positions[-1].action, _DT_S).passed
    assert envelope.counters.held == 11


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_counted_whatever_else_is_wrong(bad: float) -> None:
    envelope = _started(_one("hold"), 0.0)
    # No number and no time; what holds the robot; while it holds, both
    for action, dt_s in ((bad, 0.0), (bad, _DT_S), (bad, _DT_S), (bad, 0.0), (0.0, _DT_S)):
        assert not envelope.apply([action], dt_s).passed
    counters = envelope.counters
    assert (counters.non_finite, counters.bad_dt) == (4, 2)
    assert (counters.rejected, counters.held, counters.by_field) == (1, 4, {"x": {"non-finite": 1}})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_brake_the_robot(bad: float) -> None:
    envelope = ActionEnvelope.for_embodiment("droid_lerobot")
    envelope.reset(_DROID_START)
    moving = _DROID_START.copy()
    for _ in range(5):
        moving = moving + 0.02
        assert envelope.apply(moving, _DT_S).passed
    broken = moving.copy()
    broken[3] = bad
    verdict = envelope.apply(broken, _DT_S)
    assert verdict.kind == "rejected"
    assert verdict.causes == {"joint_position_3": "non-finite"}
    assert np.isfinite(verdict.action).all()
    # 0.3 rad/s is stopped at once
    assert np.array_equal(verdict.action, moving)
    assert envelope.counters.non_finite == 1
    for _ in range(5):
        moving = moving + 0.001
        last = envelope.apply(moving, _DT_S)
    assert last.passed


@pytest.mark.parametrize("dt_s", [0.0, -1.0, math.nan, math.inf, 1e-9])
def test_a_time_that_is_none_moves_nothing(dt_s: float) -> None:
    envelope = _started(_one(), 0.1)
    before = envelope.apply([0.11], _DT_S).action
    verdict = envelope.apply([0.12], dt_s)
    assert verdict.kind == "rejected"
    assert np.array_equal(verdict.action, before)
    assert envelope.counters.bad_dt == 1
    assert envelope.apply([0.12], _DT_S).passed


def test_the_measured_state_comes_first() -> None:
    envelope = ActionEnvelope(_one())
    with pytest.raises(UsageError, match="reset"):
        envelope.apply([0.0], _DT_S)
    with pytest.raises(UsageError, match=r"expected: +from -1\.0 to 1\.0 rad"):
        envelope.reset([1.01])
    with pytest.raises(UsageError, match="no state to begin at"):
        envelope.reset([math.nan])
    with pytest.raises(UsageError, match="stop the robot first"):
        envelope.reset([0.99], [1.0])
    with pytest.raises(ContractError, match=r"shape \[2\]"):
        envelope.reset([0.0, 0.0])
    envelope.reset([0.5], [1.0])
    assert envelope.apply([0.5 + _DT_S], _DT_S).passed
    with pytest.raises(ContractError, match="x"):
        envelope.apply([[0.0]], _DT_S)  # type: ignore[list-item]


def test_a_failed_reset_changes_nothing() -> None:
    envelope = _started(_one(), 0.5)
    with pytest.raises(UsageError):
        envelope.reset([2.0])
    assert envelope.apply([0.5], _DT_S).passed
    assert envelope.counters.resets == 1


def test_the_verdict_is_the_callers_own() -> None:
    envelope = _started(_one(), 0.0)
    envelope.apply([0.0], _DT_S).action[0] = 0.9
    assert envelope.apply([0.0], _DT_S).passed


def test_counters_are_json() -> None:
    envelope = _started(_one(), 0.0)
    envelope.apply([7.0], _DT_S)
    report = envelope.counters.to_dict()
    assert report["schema"] == "motedge.envelope_counters/v1"
    assert report["by_field"] == {"x": {"position": 1}}
    assert report["largest_change"]["x"] == pytest.approx(7.0 - 8 * _DT_S**2)
