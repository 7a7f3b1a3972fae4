"""Time as the robot's loop sees it: the machine's, or one that tests move by hand."""

from __future__ import annotations

import math
import time
from typing import Protocol

from motedge.errors import UsageError


class Clock(Protocol):
    """Seconds since some fixed moment, and waiting."""

    def now_s(self) -> float:
        """Seconds; never smaller than before, if the clock is sound."""
        ...

    def sleep(self, duration_s: float) -> None:
        """Waits that long; at once if it is not positive."""
        ...


class MonotonicClock:
    """The machine's clock, which nobody sets."""

    def now_s(self) -> float:
        """Seconds since an arbitrary moment before the process began."""
        return time.monotonic()

    def sleep(self, duration_s: float) -> None:
        """Blocks the calling thread."""
        if duration_s > 0:
            time.sleep(duration_s)


class SimulatedClock:
    """A clock that stands until it is moved; sleeping moves it. For tests and examples, from one thread."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = _finite(start_s)

    def now_s(self) -> float:
        """Seconds."""
        return self._now_s

    def sleep(self, duration_s: float) -> None:
        """Moves the clock on; not at all if the duration is not positive."""
        self._now_s += max(_finite(duration_s), 0.0)

    def advance_to(self, time_s: float) -> None:
        """Moves the clock to a moment, backwards too: a clock that jumps is something to test against."""
        self._now_s = _finite(time_s)


def _finite(value_s: float) -> float:
    if not math.isfinite(value_s):
        raise UsageError("a time that is not finite", expected="seconds", got=value_s)
    return float(value_s)
