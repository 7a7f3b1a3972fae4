"""What became of all ticks. Every tick is counted once: ticks == met + missed + failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

from motedge.errors import InternalError

MET, MISSED, FAILED = "met", "missed", "failed"


@dataclass
class DeadlineCounters:
    """Counts since the policy was made."""

    ticks: int = 0
    # A fresh chunk by the deadline
    met: int = 0
    # No fresh chunk by the deadline: `held` or `unanswered`
    missed: int = 0
    # The policy raised an error before the deadline, or the wait was interrupted
    failed: int = 0
    # Misses that were answered with what was left of an earlier chunk
    held: int = 0
    # Misses that raised DeadlineMissedError
    unanswered: int = 0
    # Ticks of which a miss was predicted; some are met all the same
    predicted_misses: int = 0
    # Ticks that found an earlier one still running, all the time that they had or so much of it that nothing fitted
    crowded_out: int = 0
    # Ticks refused because nothing fits (on_impossible="error")
    refused: int = 0
    # Trials of a better point than predicted to fit
    trials: int = 0
    # Chunks that came after their deadline and were kept for later misses
    late_chunks: int = 0
    # Errors of the policy that came after their tick had been answered
    late_errors: int = 0
    last_late_error: Optional[str] = None
    # Ticks started at each operating point
    chosen: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Iterable[str]) -> DeadlineCounters:
        """Zero everywhere."""
        return cls(chosen=dict.fromkeys(names, 0))

    def end_tick(self, outcome: str) -> None:
        """Counts a tick that ended as MET, MISSED or FAILED."""
        if outcome not in (MET, MISSED, FAILED):
            raise InternalError(f"a tick that ended as {outcome!r}")
        self.ticks += 1
        setattr(self, outcome, getattr(self, outcome) + 1)

    def copy(self) -> DeadlineCounters:
        """As they are now."""
        return dataclasses.replace(self, chosen=dict(self.chosen))

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)
