"""How deadlines are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from motedge.errors import UsageError, closest
from motedge.runtime.deadline.tick import is_number

# What becomes of a tick for which no point fits: the cheapest is run all the same, or none
ON_IMPOSSIBLE = ("cheapest", "error")


@dataclass(frozen=True)
class DeadlineOptions:
    """Margins, and what happens where nothing fits."""

    # Share by which a predicted time must stay below the time that is left
    margin: float = 0.1
    # So long before the deadline the watchdog answers, ms: a wake-up takes some 0.1 ms, more where the tick holds
    # Python's lock
    reply_margin_ms: float = 1.0
    # One of ON_IMPOSSIBLE
    on_impossible: str = "cheapest"
    # How old the observation may be whose rows are still given, s; None: as long as there are rows
    max_age_s: Optional[float] = None
    # Whether a better point than predicted to fit is tried now and then, where an earlier chunk covers a miss
    trials: bool = True

    def __post_init__(self) -> None:
        if self.on_impossible not in ON_IMPOSSIBLE:
            raise UsageError(
                f"on_impossible: unknown choice {self.on_impossible!r}",
                fix=closest(str(self.on_impossible), ON_IMPOSSIBLE),
            )
        for name in ("margin", "reply_margin_ms"):
            value = getattr(self, name)
            if not is_number(value) or value < 0:
                raise UsageError(f"{name} is wrong", expected="a finite number of at least 0", got=repr(value))
        if self.max_age_s is not None and not (is_number(self.max_age_s) and self.max_age_s > 0):
            raise UsageError("max_age_s is wrong", expected="seconds above 0, or none given", got=repr(self.max_age_s))
