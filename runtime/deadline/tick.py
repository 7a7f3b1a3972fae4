"""One call of `act`: its observation, and the moments by which things must have happened."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import UsageError
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.observation import Observation


@dataclass(frozen=True)
class Tick:
    """Moments are on the policy's clock, in s."""

    observation: Observation
    seed: Optional[int]
    deadline_ms: float
    # When the observation was made
    observed_at_s: float
    began_at_s: float
    due_s: float
    # When the watchdog gives up waiting; never before `began_at_s`
    reply_by_s: float
    # fp32 [n, 8], executed in any case from the observation on; None: nothing is
    committed: Optional[FloatArray] = None

    @property
    def whole_ms(self) -> float:
        """From the call to the watchdog."""
        return (self.reply_by_s - self.began_at_s) * 1e3

    def left_ms(self, now_s: float) -> float:
        """From now to the watchdog."""
        return (self.reply_by_s - now_s) * 1e3

    def passed_ms(self, now_s: float) -> float:
        """From the call to now."""
        return (now_s - self.began_at_s) * 1e3


def checked_deadline_ms(deadline_ms: Any) -> float:
    """The deadline as a float.

    Raises:
        UsageError: it is no number, not finite or not above 0.
    """
    if not is_number(deadline_ms) or deadline_ms <= 0:
        raise UsageError("the deadline is wrong", expected="a finite number of ms above 0", got=repr(deadline_ms))
    return float(deadline_ms)


def checked_moment_s(observed_at_s: Optional[float], now_s: float) -> float:
    """When the observation was made; now, where it is not said.

    Raises:
        UsageError: it is no finite number, or lies ahead.
    """
    if observed_at_s is None:
        return now_s
    if not is_number(observed_at_s) or observed_at_s > now_s:
        raise UsageError(
            "the time of the observation is wrong",
            expected=f"seconds on the policy's clock, at most {now_s:.3f} (now)",
            got=repr(observed_at_s),
            fix="stamp observations with time.monotonic()",
        )
    return float(observed_at_s)


def is_number(value: Any) -> bool:
    """Whether it is a finite real number, numpy's included; true and false are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
