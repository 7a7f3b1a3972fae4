"""How far a body still travels, and how it stops, under limits on acceleration and jerk.

One axis, any unit u: velocity v in u/s, acceleration a in u/s2, its limit A, the limit J of the jerk in u/s3. Commands
come at moments that are h seconds apart, h different each time, and are judged by their backward differences:

    v' = (p' - p) / h      a' = (v' - v) / h      j = (a' - a) / h

so that one step is a choice of a': v' = v + a' h, p' = p + v' h.

The plane (v, a) falls in two along the curve v = -a|a| / 2J, on which releasing the brake at full jerk ends at rest.
Above it the body ends up going forward whatever is done first, and stops by braking; below it is braked so hard that
it will go backward, and the same holds mirrored.

Why travel in continuous time bounds travel in steps, whatever h is. Braking at full jerk, a' is the acceleration at
the end of the step and acts in all of it, so that v' is smaller than in continuous time by J h^2 / 2. While a' > 0 the
position may run ahead, by a h^2 / 2 - 5 J h^3 / 6; but the travel falls with velocity by at least a'/J for each u/s, so
that the smaller velocity gives back J h^2 / 2 * a' / J, which is more. On the curve itself the step that stays on it is
a' = -(sqrt(J^2 h^2 + a^2) - J h), and v' h + |a'|^3 / 6 J^2 <= |a|^3 / 6 J^2 by Bernoulli's inequality. So a state that
can stop before a limit has, for every h, a step to a state that can.
"""

from __future__ import annotations

import math


def goes_forward(v: float, a: float, jerk: float) -> bool:
    """Whether the state lies on or above the curve v = -a|a| / 2J."""
    return v >= -a * abs(a) / (2 * jerk)


def forward_travel(v: float, a: float, acceleration: float, jerk: float) -> float:
    """The largest excursion above the present position while stopping, in u, at least 0. Grows with v and with a.

    Above the curve: jerk -J down to at most -A, held, and released at +J so that velocity and acceleration reach
    zero together. Below it: what is left until the velocity changes its sign, the brake being released.

    Args:
        v: Velocity, u/s.
        a: Acceleration, u/s2, within the limit.
        acceleration: A, u/s2, over 0.
        jerk: J, u/s3, over 0.
    """
    if not goes_forward(v, a, jerk):
        if v <= 0:
            return 0.0
        # Root of v + a t + J t^2 / 2, in the form without cancellation; a < 0 here
        root = math.sqrt(max(a * a - 2 * jerk * v, 0.0))
        t = 2 * v / (-a + root)
        return max(v * t + a * t * t / 2 + jerk * t**3 / 6, 0.0)
    travel = 0.0
    if a > 0:
        travel = v * a / jerk + a**3 / (3 * jerk * jerk)
        v, a = v + a * a / (2 * jerk), 0.0
    peak = math.sqrt(max(jerk * v + a * a / 2, 0.0))
    # Rounding may leave the peak a little short of the present deceleration
    low = max(min(peak, acceleration), -a)
    t = (low + a) / jerk
    travel += v * t + a * t * t / 2 - jerk * t**3 / 6
    if peak > acceleration:
        v += a * t - jerk * t * t / 2
        release = low * low / (2 * jerk)
        travel += max(v * v - release * release, 0.0) / (2 * low)
    return max(travel + low**3 / (6 * jerk * jerk), 0.0)


def stopping_acceleration(v: float, a: float, h: float, acceleration: float, jerk: float) -> float:
    """The a' of the step that stops as soon as the limits let it: braking, but not past the curve."""
    reach = jerk * h
    speed = abs(v)
    onto_curve = -math.copysign(2 * jerk * speed / (reach + math.sqrt(reach * reach + 2 * jerk * speed)), v)
    if speed == 0:
        onto_curve = 0.0
    if goes_forward(v, a, jerk):
        return max(a - reach, -acceleration, onto_curve)
    return min(a + reach, acceleration, onto_curve)
