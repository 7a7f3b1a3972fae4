"""One field of an action under limits on position, speed, acceleration and jerk: what the next value may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from motedge.client.braking import forward_travel

# Halvings of an interval of accelerations: more than a double has digits
_HALVINGS = 60
# What stands for a limit that is not given, in 1/s: the next lower derivative's limit times this
UNLIMITED_PER_S = 1e6


@dataclass(frozen=True)
class AxisLimits:
    """Limits of one field in its unit u; the lower ones of `usable` are those that hold together."""

    # Least and greatest position, u; infinite if there is none
    low: float
    high: float
    # u/s, u/s2, u/s3, all over 0
    speed: float
    acceleration: float
    jerk: float

    def usable(self) -> AxisLimits:
        """The same with the acceleration lowered to what speed, jerk and range can use.

        More than sqrt(J V) is not reached between standstill and full speed. More than (J^2 range)^(1/3) can't be
        released again inside the range: going out of one brake would need the opposite limit. Both together make
        sure that braking for one limit never stands against another (see `window`).
        """
        most = min(self.acceleration, math.sqrt(self.jerk * self.speed))
        span = self.high - self.low
        if math.isfinite(span):
            most = min(most, (self.jerk * self.jerk * span) ** (1 / 3))
        return AxisLimits(self.low, self.high, self.speed, most, self.jerk)

    def mirrored(self) -> AxisLimits:
        """The same axis, counted the other way."""
        return AxisLimits(-self.high, -self.low, self.speed, self.acceleration, self.jerk)


@dataclass(frozen=True)
class AxisState:
    """Position u, velocity u/s and acceleration u/s2 as backward differences of what was given out."""

    position: float
    velocity: float = 0.0
    acceleration: float = 0.0

    def mirrored(self) -> AxisState:
        """The same state, counted the other way."""
        return AxisState(-self.position, -self.velocity, -self.acceleration)

    def moved(self, acceleration: float, h: float) -> AxisState:
        """The state h seconds later with that acceleration in the step."""
        velocity = self.velocity + acceleration * h
        return AxisState(self.position + velocity * h, velocity, acceleration)

    def moved_to(self, position: float, h: float) -> AxisState:
        """The state h seconds later at that position."""
        velocity = (position - self.position) / h
        return AxisState(position, velocity, (velocity - self.velocity) / h)


@dataclass(frozen=True)
class Bound:
    """The greatest acceleration that a step may have, and the limit that sets it."""

    acceleration: float
    # "position", "speed", "acceleration" or "jerk"
    limit: str


@dataclass(frozen=True)
class Window:
    """The accelerations that a step may have. Never empty for a state that can stop."""

    least: Bound
    most: Bound

    def clamp(self, acceleration: float) -> float:
        """The nearest acceleration inside."""
        return min(max(acceleration, self.least.acceleration), self.most.acceleration)


def window(state: AxisState, limits: AxisLimits, h: float) -> Window:
    """The accelerations of a step of h seconds that keep every limit now and leave a way to keep them ever after.

    Invariants of the upper side, each of which grows with a', and which braking at full jerk keeps for any h:

    - speed: v + max(a, 0)^2 / 2J <= V, room to take the acceleration back
    - position: p + forward_travel(v, a) <= high, room to stop

    The lower side is the same mirrored. With the acceleration of `usable` the two sides leave an acceleration
    between them: a^2 / 2J <= V / 2 keeps the speed's apart, and the travels to either side of one state are
    together below A^3 / J^2.

    Args:
        state: A state that `window` led to, or one at rest inside the limits.
        limits: What `AxisLimits.usable` returned.
        h: Seconds since the state, over 0.
    """
    most = _most(state, limits, h)
    mirrored = _most(state.mirrored(), limits.mirrored(), h)
    least = Bound(-mirrored.acceleration, mirrored.limit)
    if least.acceleration > most.acceleration:
        # Rounding alone: both bounds are the same number up to its last digits
        middle = (least.acceleration + most.acceleration) / 2
        return Window(Bound(middle, least.limit), Bound(middle, most.limit))
    return Window(least, most)


def _most(state: AxisState, limits: AxisLimits, h: float) -> Bound:
    jerk = limits.jerk
    lowest = max(state.acceleration - jerk * h, -limits.acceleration)
    bounds = [
        Bound(state.acceleration + jerk * h, "jerk"),
        Bound(limits.acceleration, "acceleration"),
        Bound(_most_for_speed(limits.speed - state.velocity, jerk, h), "speed"),
    ]
    best = min(bounds, key=lambda bound: bound.acceleration)
    best = Bound(max(best.acceleration, lowest), best.limit)
    if not stops_before(limits.high, state.moved(best.acceleration, h), limits):
        return Bound(bisect_stop(limits.high, state, limits, h, lowest, best.acceleration), "position")
    return best


def _most_for_speed(room: float, jerk: float, h: float) -> float:
    """The greatest a' with a' h + max(a', 0)^2 / 2J <= room, room in u/s."""
    if room <= 0:
        return room / h
    reach = jerk * h
    return 2 * jerk * room / (reach + math.sqrt(reach * reach + 2 * jerk * room))


def stops_before(high: float, state: AxisState, limits: AxisLimits, frame: float = 0.0) -> bool:
    """Whether the state can stop at or before `high`; in a frame that moves at `frame` u/s, if that is not 0."""
    travel = forward_travel(state.velocity - frame, state.acceleration, limits.acceleration, limits.jerk)
    return state.position + travel <= high


def bisect_stop(
    high: float,
    state: AxisState,
    limits: AxisLimits,
    h: float,
    least: float,
    most: float,
    frame: Optional[float] = None,
) -> float:
    """The greatest acceleration from `least` to `most` after whose step the body can stop before `high`.

    `least` if none can, which is the hardest braking and only a rounding away where the invariant held before.
    """
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        if stops_before(high, state.moved(middle, h), limits, frame or 0.0):
            least = middle
        else:
            most = middle
    return least
