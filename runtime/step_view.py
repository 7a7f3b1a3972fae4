"""What a caller may see of a run while it goes on: how far it is, and what the result looks like by now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from motedge.runtime.engine import FloatArray


@dataclass(frozen=True)
class StepView:
    """One denoising step, after its forwards. The arrays are the loop's own: read them before returning."""

    # Counted from 0
    step: int
    steps: int
    # Noise level, 0 to 1
    sigma: float
    # fp32 [C, T, h, w]: the noisy state that the network was fed, and its velocity, guidance included
    vision: FloatArray
    velocity: FloatArray

    def clean_vision(self) -> FloatArray:
        """What the network takes the latents to be, fp32 [C, T, h, w], a new array."""
        clean: FloatArray = self.vision - self.velocity * self.vision.dtype.type(self.sigma)
        return clean


# Called once a step
StepWatch = Callable[[StepView], None]
