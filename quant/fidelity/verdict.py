"""The verdict: whether the numbers that decide reach the gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from motedge.quant.fidelity.figures import Figures
from motedge.runtime.comparison import Gate

PASSED, FAILED, NOT_JUDGED = "passed", "failed", "not judged"


@dataclass(frozen=True)
class Deciding:
    """One number that decides."""

    what: str
    cosine: Optional[float]
    relative_l2: Optional[float]
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """Passed only if everything that decides reaches the gate."""

    # PASSED, FAILED or NOT_JUDGED
    status: str
    # The gate
    min_cosine: float
    max_relative_l2: float
    deciding: list[Deciding] = field(default_factory=list)
    # Why nothing was judged
    reason: Optional[str] = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For a terminal."""
        gate = f"gate: cosine at least {self.min_cosine:g}, relative L2 at most {100 * self.max_relative_l2:g} %"
        head = f"fidelity {self.status}" + (f": {self.reason}" if self.reason else "")
        rows = [
            f"  {entry.what:<42} cosine {_number(entry.cosine, '.6f')}  relative L2 "
            f"{_number(entry.relative_l2, '.3%')}  {'passed' if entry.passed else 'FAILED'}"
            for entry in self.deciding
        ]
        return [head, *rows, f"  {gate}"]


def judge(gate: Gate, deciding: Sequence[tuple[str, Figures]]) -> Verdict:
    """Judges named figures; with none there is nothing to judge."""
    if not deciding:
        reason = "no held-out observations were given, so only weights were measured"
        return Verdict(NOT_JUDGED, gate.cosine, gate.relative_l2, [], reason)
    entries = [Deciding(what, f.cosine, f.relative_l2, f.passes(gate)) for what, f in deciding]
    status = PASSED if all(entry.passed for entry in entries) else FAILED
    return Verdict(status, gate.cosine, gate.relative_l2, entries)


def _number(value: Optional[float], form: str) -> str:
    return "not finite" if value is None else format(value, form)
