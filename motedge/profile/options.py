"""How a profile is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from motedge.errors import UsageError

# Power falls with a delay when work ends, and NVML's is an average over about as long
SETTLING_S = 1.0
# Fewest warm ticks from which anything is said, when the time is up before all were run
FEWEST_TICKS = 5


@dataclass(frozen=True)
class ProfileOptions:
    """Ticks and times. Wrong values are refused on creation."""

    # Ticks that are measured warm
    ticks: int = 100
    # Ticks between the first and the measured ones: they fill caches, and on a GPU capture the CUDA graph
    warmup: int = 5
    # Ticks that each bring another instruction
    new_prompts: int = 5
    # Warm ticks end after so many seconds, when FEWEST_TICKS are there
    max_s: float = 60.0
    # Ticks a second; None: one after the other
    rate_hz: Optional[float] = None
    # Time that a chunk may take; None: nobody asks
    deadline_ms: Optional[float] = None
    # Between two readings of the sensors
    interval_ms: float = 100.0
    # Rest before the measured ticks, over which the power of the idle machine is read; not counted for its first
    # SETTLING_S
    idle_s: float = 3.0
    # Ticks that sensors are read during, so long: none of them counts as latency
    energy_s: float = 5.0

    def __post_init__(self) -> None:
        for name, least in (("ticks", 1), ("warmup", 0), ("new_prompts", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{_option(name)} is wrong", expected=f"a whole number from {least}", got=value)
        for name in ("max_s", "rate_hz", "deadline_ms"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{_option(name)} is wrong", expected="a finite number above 0", got=value)
        for name in ("idle_s", "energy_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 3600):
                raise UsageError(f"{_option(name)} is wrong", expected="0 to 3600 s", got=value)
        if not 1 <= self.interval_ms <= 60_000:
            raise UsageError("the sensors' interval is wrong", expected="1 to 60000 ms", got=self.interval_ms)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
