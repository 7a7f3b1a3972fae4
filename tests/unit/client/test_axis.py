"""The invariants behind the envelope, for any limits and any times between commands."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from motedge.client.axis import AxisLimits, AxisState, stops_before, window
from motedge.client.braking import forward_travel, goes_forward, stopping_acceleration

_EPS = float(np.finfo(float).eps)
# Decades around a robot's: 0.01 to 100 u/s, 0.01 to 1,000 u/s2, 0.01 to 100,000 u/s3, ranges of 1 mu to 100 u
_limits = st.builds(
    lambda low, span, speed, acceleration, jerk: AxisLimits(
        low, low + 10.0**span, 10.0**speed, 10.0**acceleration, 10.0**jerk
    ),
    st.floats(-2, 2),
    st.floats(-3, 2),
    st.floats(-2, 2),
    st.floats(-2, 3),
    st.floats(-2, 5),
)


def _periods(kind: str, draw: random.Random, base_s: float) -> float:
    if kind == "even":
        return base_s
    return base_s * draw.uniform(0.3, 3) if kind == "jitter" else 10 ** draw.uniform(-4, 1)


def _choice(kind: str, draw: random.Random, least: float, most: float, step: int) -> float:
    """An acceleration out of the window: its ends are what breaks an invariant that is only nearly one."""
    if kind == "up":
        return most
    if kind == "swing":
        return most if (step // 13) % 2 else least
    return draw.choice([least, most]) if kind == "ends" else draw.uniform(least, most)


@settings(max_examples=150, deadline=None)
@given(
    _limits,
    st.floats(0, 1),
    st.floats(-3, 0),
    st.sampled_from(["even", "jitter", "wild"]),
    st.sampled_from(["up", "swing", "ends", "inside"]),
    st.randoms(use_true_random=False),
)
def test_a_step_that_keeps_every_limit_is_always_left(
    given_limits: AxisLimits, start: float, base: float, timing: str, choice: str, draw: random.Random
) -> None:
    limits = given_limits.usable()
    span = limits.high - limits.low
    state = AxisState(limits.low + start * span)
    for step in range(120):
        h = _periods(timing, draw, 10.0**base)
        allowed = window(state, limits, h)
        least, most = allowed.least.acceleration, allowed.most.acceleration
        # Rounding alone may close the window, never the limits
        assert least <= most
        after = state.moved(_choice(choice, draw, least, most, step), h)
        assert limits.low - _EPS * 4 * span <= after.position <= limits.high + _EPS * 4 * span
        assert abs(after.velocity) <= given_limits.speed * (1 + 4 * _EPS)
        assert abs(after.acceleration) <= given_limits.acceleration
        jerk = abs(after.acceleration - state.acceleration) / h
        # The difference of two accelerations is exact to their own last place
        assert jerk <= given_limits.jerk * (1 + 4 * _EPS) + 4 * _EPS * abs(state.acceleration) / h
        state = after


@settings(max_examples=100, deadline=None)
@given(_limits, st.floats(-1, 1), st.floats(-1, 1))
def test_travel_is_that_of_integrated_braking(limits: AxisLimits, speed: float, acceleration: float) -> None:
    """forward_travel in closed form against the same policy in 20,000 small steps of its own."""
    most, jerk = limits.usable().acceleration, limits.jerk
    v, a = speed * limits.speed, acceleration * most
    expected = forward_travel(v, a, most, jerk)
    duration = 2 * (abs(v) / most + 4 * most / jerk + 2 * math.sqrt(abs(v) / jerk))
    h = duration / 20_000
    position = highest = 0.0
    released = not goes_forward(v, a, jerk)
    for _ in range(20_000):
        released = released or (v <= a * a / (2 * jerk) and a < 0)
        a = min(a + jerk * h, 0.0) if released else max(a - jerk * h, -most)
        v += a * h
        position += v * h
        highest = max(highest, position)
    scale = abs(speed) * limits.speed * duration + most * duration**2
    assert highest == pytest.approx(expected, abs=3e-3 * scale + 1e-12)


@settings(max_examples=60, deadline=None)
@given(_limits, st.floats(0, 1), st.floats(0, 1), st.floats(-3, 0))
def test_stopping_comes_to_rest(limits: AxisLimits, start: float, push: float, base: float) -> None:
    usable, h = limits.usable(), 10.0**base
    # What a stop from full speed takes at most, and some steps of its end, which is approached rather than met
    steps = 2 * (usable.speed / usable.acceleration + 4 * usable.acceleration / usable.jerk) / h + 60
    assume(steps < 2000)
    state = AxisState(limits.low + start * (limits.high - limits.low))
    for _ in range(20):
        allowed = window(state, usable, h)
        least, most = allowed.least.acceleration, allowed.most.acceleration
        state = state.moved(least + push * (most - least), h)
    for _ in range(int(steps)):
        wanted = stopping_acceleration(state.velocity, state.acceleration, h, usable.acceleration, usable.jerk)
        state = state.moved(window(state, usable, h).clamp(wanted), h)
    assert abs(state.velocity) <= 1e-6 * usable.speed


def test_a_state_that_can_stop_is_seen_as_such() -> None:
    # 2 u/s at 4 u/s2 without jerk to speak of: 0.5 u
    limits = AxisLimits(-1.0, 1.0, 2.0, 4.0, 4e6)
    assert stops_before(1.0, AxisState(0.499, 2.0), limits)
    assert not stops_before(1.0, AxisState(0.501, 2.0), limits)


def test_what_limits_can_not_use_is_lowered() -> None:
    assert AxisLimits(-1, 1, 2.0, 15.0, 7500.0).usable().acceleration == 15.0
    assert AxisLimits(-1, 1, 1.0, 100.0, 25.0).usable().acceleration == pytest.approx(5.0)
    assert AxisLimits(0, 1e-3, 1e6, 100.0, 1.0).usable().acceleration == pytest.approx(0.1)
