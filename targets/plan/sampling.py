"""Operating points: how many forwards a way of sampling takes, by the runtime's own schedule and guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from motedge.runtime.guidance import GuidancePlan
from motedge.runtime.schedule import FlowSchedule


@dataclass(frozen=True)
class Sampling:
    """One way of sampling."""

    steps: int
    shift: float
    guidance: float
    interval: Optional[tuple[float, float]]
    # T; None: the shape set's
    frames: Optional[int] = None

    @property
    def forwards(self) -> int:
        """Forwards of gen_step a tick; UsageError for values that the runtime does not take."""
        return self._plan().forwards(FlowSchedule(self.steps, self.shift).timesteps)

    @property
    def branches(self) -> int:
        """Prompts that are needed: 2 where guidance is active at some step."""
        return 2 if self.forwards > self.steps else 1

    def _plan(self) -> GuidancePlan:
        return GuidancePlan(self.guidance, self.interval)

    @classmethod
    def of_policy(
        cls,
        policy: Mapping[str, Any],
        *,
        steps: Optional[int] = None,
        guidance: Optional[float] = None,
        frames: Optional[int] = None,
    ) -> Sampling:
        """The bundle's policy, with what differs from it."""
        interval = policy.get("guidance_interval")
        return cls(
            steps=int(policy["steps"]) if steps is None else steps,
            shift=float(policy["shift"]),
            guidance=float(policy["guidance"]) if guidance is None else guidance,
            interval=None if interval is None else (float(interval[0]), float(interval[1])),
            frames=frames,
        )
