"""What a policy has to be told of an embodiment: what it sees, its state, its prompt, and what its rows mean."""

from __future__ import annotations

from typing import Optional, Protocol

from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.embodiments import Embodiment
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.prompt import Clip
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.shape import PolicyShape


class ServingProtocol(Protocol):
    """How one kind of embodiment is served. Without state of its own: one object serves every policy of its kind."""

    @property
    def state_rows(self) -> int:
        """Rows before the actions that hold the current state: 1 or 0. Without one, row 0 leads to frame 1."""
        ...

    @property
    def kernels(self) -> bool:
        """Whether the compiled kernels bring its pictures onto the canvas; otherwise numpy does."""
        ...

    def image_size(self, shape: PolicyShape) -> tuple[int, int]:
        """Rows and columns of the one picture that stands for all cameras."""
        ...

    def image(self, observation: Observation, shape: PolicyShape) -> tuple[Image, tuple[str, ...]]:
        """The picture that the model is given, uint8 [rows, columns, 3], and the views missing from it.

        Raises:
            ObservationError: another embodiment's observation, a view on the GPU, a picture of the wrong shape.
        """
        ...

    def prompt(self, instruction: str, clip: Clip, robot: Embodiment, prompt_format: str) -> str:
        """The text that the model is given for an instruction.

        Raises:
            UsageError: a format that it has no text for.
        """
        ...

    def rows(self, observation: Observation, committed: Optional[FloatArray], *, rows: int, width: int) -> FloatArray:
        """Action rows fp32 [rows, width]: the state if there is one, committed actions, zeros.

        Raises:
            ObservationError: another embodiment's observation.
            ContractError: committed actions that are none, or leave nothing to generate.
        """
        ...

    def actions(self, rows: FloatArray) -> FloatArray:
        """What a robot is told, fp32 [n, fields], of denoised rows fp32 [rows, width]."""
        ...

    def blank(self, instruction: str, shape: PolicyShape) -> Observation:
        """An observation that shows nothing, to warm up with."""
        ...
