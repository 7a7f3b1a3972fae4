"""One field that follows its target inside its limits: the target itself where the limits let it, else towards it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from motedge.client.axis import AxisLimits, AxisState, Bound, Window, bisect_stop, stops_before, window
from motedge.client.braking import stopping_acceleration

# A difference of this share of a position is rounding, not a change: a few units in a double's last place
_ROUNDING = 1e-15


@dataclass(frozen=True)
class Step:
    """What a field does next."""

    state: AxisState
    # Why it is not the target: "position", "speed", "acceleration", "jerk" or "catching up"; None if it is
    limit: Optional[str]


class Follower:
    """Keeps one field inside its limits, whatever its targets are.

    A target that the limits allow is given out as it is, bit for bit. After one that they don't, the field is behind
    and approaches the targets so that it can stop there, or run along with them, without passing them by.
    """

    def __init__(self, limits: AxisLimits, state: AxisState) -> None:
        self.limits = limits
        self.state = state
        self._usable = limits.usable()
        # The last target that was accepted, its velocity as far as the speed allows, u/s, and its age
        self._target = state.position
        self._target_speed = state.velocity
        self._target_age_s = 0.0
        # Whether that target was reached
        self._joined = True

    def can_stop(self) -> bool:
        """Whether the present state is one that the limits let stop; what everything else stands on."""
        speed_left = self.limits.speed - abs(self.state.velocity)
        mirrored = stops_before(-self.limits.low, self.state.mirrored(), self._usable)
        return speed_left >= 0 and stops_before(self.limits.high, self.state, self._usable) and mirrored

    def refuses(self, target: float, h: float) -> Optional[str]:
        """The limit that a finite target breaks; None if it is plausible.

        While the field is on its targets, a target must be allowed as it is. While it is behind, it must be in range
        and no farther from the last accepted one than full speed would get in the time since.
        """
        if self._inside(target) != target:
            return "position"
        if self._joined:
            return _exceeded(self.state.moved_to(target, h).acceleration, window(self.state, self._usable, h))
        reach = self.limits.speed * (self._target_age_s + h)
        return "speed" if abs(target - self._target) > reach else None

    def step_to(self, target: float, h: float) -> Step:
        """The next step towards a target, h seconds after the last; nothing changes before `take`.

        Args:
            target: Finite, u.
            h: Seconds, over 0.
        """
        inside = self._inside(target)
        allowed = window(self.state, self._usable, h)
        exact = self.state.moved_to(inside, h)
        speed = self._target_velocity(inside, h)
        limit = _exceeded(exact.acceleration, allowed)
        if limit is None and (self._joined or self._stays_joined(exact, speed, h)):
            return Step(exact, None if inside == target else "position")
        state = self._clipped(self._approach(inside, speed, h, allowed), h)
        if abs(state.position - target) <= _ROUNDING * max(abs(target), abs(self.state.position)):
            return Step(state, None)
        return Step(state, "position" if inside != target else limit or "catching up")

    def step_to_rest(self, h: float) -> Step:
        """The next step of a stop as short as the limits allow."""
        allowed = window(self.state, self._usable, h)
        exact = self.state.moved_to(self.state.position, h)
        if _exceeded(exact.acceleration, allowed) is None and self._stays_joined(exact, 0.0, h):
            return Step(exact, None)
        now, most = self.state, self._usable
        braked = stopping_acceleration(now.velocity, now.acceleration, h, most.acceleration, most.jerk)
        return Step(self._clipped(allowed.clamp(braked), h), None)

    def take(self, step: Step, h: float, target: Optional[float]) -> None:
        """Makes that step the present; `target` is what it went for, None where it went to rest."""
        self._target_age_s += h
        if target is None:
            self._target_speed = 0.0
        else:
            inside = self._inside(target)
            speed = (inside - self._target) / self._target_age_s
            self._target_speed = min(max(speed, -self.limits.speed), self.limits.speed)
            self._target, self._target_age_s = inside, 0.0
        self._joined = step.state.position == self._target
        self.state = step.state

    def _inside(self, target: float) -> float:
        return min(max(target, self.limits.low), self.limits.high)

    def _target_velocity(self, target: float, h: float) -> float:
        """Velocity of the targets, u/s: the smaller of the last two, so that one jump does not look like motion."""
        now, before = (target - self._target) / (self._target_age_s + h), self._target_speed
        if now == 0 or before == 0 or (now > 0) != (before > 0):
            return 0.0
        return math.copysign(min(abs(now), abs(before)), now)

    def _stays_joined(self, state: AxisState, speed: float, h: float) -> bool:
        """Whether a state on the target could run along with it at `speed` from the next step on."""
        change = (speed - state.velocity) / h
        most = self._usable
        takes_up = abs(change) <= most.acceleration and abs(change - state.acceleration) <= most.jerk * h
        return takes_up and abs(change) <= most.jerk * h

    def _approach(self, target: float, speed: float, h: float, allowed: Window) -> float:
        """The acceleration that gets to a target moving at `speed` soonest and can still stop relative to it."""
        state, most = self.state, self._usable
        if state.position > target - speed * h:
            mirrored = Window(_mirrored(allowed.most), _mirrored(allowed.least))
            return -_approach_below(-target, -speed, state.mirrored(), most.mirrored(), h, mirrored)
        return _approach_below(target, speed, state, most, h, allowed)

    def _clipped(self, acceleration: float, h: float) -> AxisState:
        """The state after the step, its position inside in spite of rounding."""
        state = self.state.moved(acceleration, h)
        position = min(max(state.position, self.limits.low), self.limits.high)
        return AxisState(position, state.velocity, state.acceleration)


def _approach_below(
    target: float, speed: float, state: AxisState, limits: AxisLimits, h: float, allowed: Window
) -> float:
    least, most = allowed.least.acceleration, allowed.most.acceleration
    if stops_before(target, state.moved(most, h), limits, speed):
        return most
    return bisect_stop(target, state, limits, h, least, most, speed)


def _mirrored(bound: Bound) -> Bound:
    return Bound(-bound.acceleration, bound.limit)


def _exceeded(acceleration: float, allowed: Window) -> Optional[str]:
    """The limit that an acceleration would break, None if it is allowed."""
    if acceleration > allowed.most.acceleration:
        return allowed.most.limit
    if acceleration < allowed.least.acceleration:
        return allowed.least.limit
    return None
