"""Who drives: a bundle's model, the expert, or nobody. All give a chunk of 16 rows for a picture and an instruction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional, Protocol

import numpy as np
from numpy.typing import NDArray

from examples.train_small.road.camera import Image
from examples.train_small.road.expert import RATE_HZ, ROWS, Expert, behaviour_index
from examples.train_small.road.instructions import behaviour_of
from examples.train_small.road.simulator import Simulator
from motedge.files import PathLike
from motedge.runtime.generate.generator import Generator
from motedge.runtime.generate.loader import load_generator
from motedge.runtime.generate.request import GenerateRequest

# As the checkpoint is trained and evaluated; NVIDIA's policy servers take the same
STEPS, SHIFT = 4, 5.0


class Driver(Protocol):
    """Plans from what is seen."""

    def plan(self, picture: Image, instruction: str, simulator: Simulator, seed: int) -> NDArray[np.float32]:
        """A chunk fp32 [16, 9]. Only the expert may look at the simulator."""
        ...


class ExpertDriver:
    """The expert, through chunks and tracker as the others: the best that can be had."""

    def __init__(self) -> None:
        """Waits for a road."""
        self._expert: Optional[Expert] = None

    def plan(self, picture: Image, instruction: str, simulator: Simulator, seed: int) -> NDArray[np.float32]:
        """See `Driver`."""
        if self._expert is None or self._expert.track is not simulator.track:
            self._expert = Expert(simulator.track)
        what = behaviour_index(behaviour_of(instruction))
        plan: NDArray[np.float32] = self._expert.plan(simulator.pose()[None], [what])[0]
        return plan


class StraightAhead:
    """Drives on without looking: what a score is worth that nobody earned."""

    def __init__(self, speed_m_s: float = 8.0) -> None:
        """At one speed."""
        self._row = [0.0, 0.0, speed_m_s / RATE_HZ, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]

    def plan(self, picture: Image, instruction: str, simulator: Simulator, seed: int) -> NDArray[np.float32]:
        """See `Driver`."""
        return np.tile(np.array(self._row, np.float32), (ROWS, 1))


@dataclass
class BundleDriver:
    """The model of a bundle, as `motedge generate policy --embodiment av` runs it, in this process."""

    generator: Generator
    # Fields of SamplerSettings
    sampler: dict[str, Any] = field(default_factory=lambda: {"steps": STEPS, "shift": SHIFT})
    # Forwards of the generator tower, and plans, so far
    forwards: int = 0
    plans: int = 0

    @classmethod
    def open(cls, bundle: PathLike, *, recipe: Optional[str] = None, threads: int = 1, **sampler: Any) -> BundleDriver:
        """Opens a bundle on the host.

        Raises:
            BundleError, UsageError: as `load_generator`.
        """
        generator = load_generator(bundle, recipe=recipe, threads=threads, check="size")
        return cls(generator, {"steps": STEPS, "shift": SHIFT, **sampler})

    def plan(self, picture: Image, instruction: str, simulator: Simulator, seed: int) -> NDArray[np.float32]:
        """See `Driver`."""
        request = GenerateRequest(
            "policy", instruction, image=picture, embodiment="av", frames=ROWS + 1, seed=seed, sampler=self.sampler
        )
        made = self.generator.generate(request)
        self.forwards, self.plans = self.forwards + made.counters.forwards, self.plans + 1
        rows: NDArray[np.float32] = np.asarray(made.actions, np.float32)
        return rows

    def close(self) -> None:
        """Frees the engines."""
        self.generator.close()
