"""What an envelope did since it was made: nothing that it changes goes uncounted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = "motedge.envelope_counters/v1"


@dataclass
class EnvelopeCounters:
    """Counts of actions, by verdict and by cause. passed + clamped + rejected + held = actions."""

    actions: int = 0
    # Given out as they came
    passed: int = 0
    # Given out with at least one field changed
    clamped: int = 0
    # Dropped whole: the robot braked instead
    rejected: int = 0
    # Dropped whole because an earlier action, or this one, stopped the robot until the next reset
    held: int = 0
    # Actions with NaN or infinity among those rejected or held
    non_finite: int = 0
    # Actions whose dt_s was no time, among those rejected or held
    bad_dt: int = 0
    resets: int = 0
    # Field -> cause -> actions: "position", "speed", "acceleration", "jerk", "catching up", "non-finite"
    by_field: dict[str, dict[str, int]] = field(default_factory=dict)
    # Field -> largest change that clamping made, in the field's unit
    largest_change: dict[str, float] = field(default_factory=dict)

    def count(self, kind: str, causes: Mapping[str, str]) -> None:
        """One action with that verdict; `causes` says why for each field that is to blame."""
        self.actions += 1
        setattr(self, kind, getattr(self, kind) + 1)
        for name, cause in causes.items():
            of_field = self.by_field.setdefault(name, {})
            of_field[cause] = of_field.get(cause, 0) + 1

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"schema": SCHEMA, **asdict(self)}
