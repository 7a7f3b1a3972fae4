"""One rung of the ladder: sampler settings with a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from motedge.errors import UsageError
from motedge.runtime.request import SamplerSettings


@dataclass(frozen=True)
class OperatingPoint:
    """A way of sampling that a tick can be given."""

    name: str
    settings: SamplerSettings
    # False where the network is asked for something that it was not trained for; replies say so
    trained: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise UsageError("an operating point has no name", expected="a short text", got=repr(self.name))
        if not isinstance(self.trained, bool):
            raise UsageError(f"point {self.name!r}: trained is wrong", expected="true or false", got=repr(self.trained))
        # Refuses now what the loop would refuse during a tick, such as two equal noise levels
        self.settings.schedule()

    @property
    def forwards(self) -> int:
        """Forwards of the generator in a tick: one a step, two where guidance is active, less those left out."""
        return self.settings.forwards()

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        interval = self.settings.guidance_interval
        return {
            "name": self.name,
            "steps": self.settings.steps,
            "shift": self.settings.shift,
            "guidance": self.settings.guidance,
            "guidance_interval": None if interval is None else list(interval),
            **({} if self.settings.step_cache is None else {"step_cache": str(self.settings.step_cache)}),
            "forwards": self.forwards,
            "trained": self.trained,
        }
