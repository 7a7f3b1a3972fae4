"""What the time is. Injected, so that tests run on simulated time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A clock that never goes back."""

    def now_s(self) -> float:
        """Seconds since some fixed moment."""
        ...


class MonotonicClock:
    """The system's monotonic clock. Observations that carry its time must have been stamped by `time.monotonic`."""

    def now_s(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()
