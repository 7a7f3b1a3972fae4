"""What a search is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from motedge.errors import UsageError, closest

# "action": relative L2 squared of the action rows' velocity; "velocity": mean of that and of the latent's velocity
METRICS = ("action", "velocity")
COMPUTE = ("fp32", "bf16")
# The bound that the fidelity gate sets by default: relative L2 of 3 %
DEFAULT_MAX_ERROR = 0.03


@dataclass(frozen=True)
class Target:
    """What the mixture must meet: exactly one of three bounds."""

    # Relative L2 of the metric over the recorded forwards, at most; bytes are minimised
    max_error: Optional[float] = None
    # Bytes of the projections' weights, at most; the error is minimised
    max_bytes: Optional[int] = None
    # The same as bits a weight
    max_bits: Optional[float] = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) > 1:
            raise UsageError("more than one target for the mixture", expected="one of them", got=", ".join(given))
        for name, value in given.items():
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is wrong", expected="a finite number above 0", got=value)
        if not given:
            object.__setattr__(self, "max_error", DEFAULT_MAX_ERROR)

    def bytes_for(self, weights: int) -> Optional[int]:
        """The bound in bytes for this many weights; None where the error is bounded."""
        if self.max_bits is not None:
            return int(self.max_bits * weights / 8)
        return self.max_bytes

    def in_words(self) -> str:
        """For people."""
        if self.max_error is not None:
            return f"least bytes with a relative L2 of at most {self.max_error:.3g}"
        if self.max_bits is not None:
            return f"least error with at most {self.max_bits:g} bits a weight"
        return f"least error with at most {self.max_bytes:,} bytes"


@dataclass(frozen=True)
class SearchOptions:
    """How a search measures. All but `target`, `front` and `metric` determine the costs themselves."""

    # One of METRICS
    metric: str = "action"
    target: Target = Target()
    # Forwards of the generator on which every cost is measured; None: 8, or one for each step and branch if more
    forwards: Optional[int] = None
    # Mixtures between the smallest and the largest that are measured for the front
    front: int = 6
    # Seed of the first request's noise; each further one has the next
    seed: int = 0
    # "fp32" or "bf16": what the towers compute in, and the graph whose scales are emulated
    compute: str = "fp32"
    # A torch device
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UsageError(f"unknown metric {self.metric!r}", fix=closest(self.metric, METRICS))
        if self.compute not in COMPUTE:
            raise UsageError(f"unknown type to compute in {self.compute!r}", fix=closest(self.compute, COMPUTE))
        if self.forwards is not None and self.forwards < 1:
            raise UsageError("the number of forwards is wrong", expected="at least 1", got=self.forwards)
        if self.front < 0:
            raise UsageError("the number of mixtures on the front is wrong", expected="0 or more", got=self.front)
        if not 0 <= self.seed < 2**31:
            raise UsageError("the seed is out of range", expected="0 to 2147483647", got=self.seed)
