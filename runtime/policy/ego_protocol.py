"""Vehicles: one camera looking ahead, no state, and the camera's own motion back, pose by pose.

The same request as `motedge.runtime.generate` makes of mode "policy" for such an embodiment, bit for bit.
"""

from __future__ import annotations

from typing import Optional

import numpy as np

from motedge.errors import ContractError, ObservationError, UsageError
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.embodiments import Embodiment
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.prompt import Clip
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.shape import PolicyShape

# Translation and the first two columns of the rotation, of each pose seen from the one before it
POSE_DIM = 9


class EgoProtocol:
    """A `ServingProtocol`."""

    state_rows = 0
    kernels = False

    def image_size(self, shape: PolicyShape) -> tuple[int, int]:
        """See `ServingProtocol.image_size`: what the model is given. Larger pictures of that shape are shrunk."""
        return shape.content

    def image(self, observation: Observation, shape: PolicyShape) -> tuple[Image, tuple[str, ...]]:
        """See `ServingProtocol.image`."""
        # The generator's package needs the policy's
        from motedge.runtime.generate.fitting import fit

        try:
            return fit(_picture(observation), shape.canvas, shape.content), ()
        except UsageError as error:
            raise ObservationError(
                error.what, expected=error.expected, got=error.got, why=error.why, fix=error.fix
            ) from error

    def prompt(self, instruction: str, clip: Clip, robot: Embodiment, prompt_format: str) -> str:
        """See `ServingProtocol.prompt`."""
        from motedge.runtime.generate.caption import Take, action_caption

        if prompt_format != "json":
            raise UsageError(
                f"embodiment {robot.name!r} has no prompt in this form", expected="json", got=prompt_format
            )
        return action_caption(instruction, Take(clip.frames, clip.fps, clip.canvas), robot.framing())

    def rows(self, observation: Observation, committed: Optional[FloatArray], *, rows: int, width: int) -> FloatArray:
        """See `ServingProtocol.rows`. Committed poses are rows as they are returned."""
        _picture(observation)
        packed = np.zeros((rows, width), np.float32)
        if committed is None:
            return packed
        given = np.asarray(committed, np.float32)
        if given.ndim != 2 or given.shape[1] != POSE_DIM or len(given) > rows - 1 or not np.isfinite(given).all():
            raise ContractError(
                "these actions can't be committed",
                expected=f"finite numbers, at most {rows - 1} rows of {POSE_DIM}: one row at least is to be generated",
                got=f"shape {list(given.shape)}",
            )
        packed[: len(given), :POSE_DIM] = given
        return packed

    def actions(self, rows: FloatArray) -> FloatArray:
        """See `ServingProtocol.actions`: raw poses, all rows."""
        return rows[:, :POSE_DIM].astype(np.float32)

    def blank(self, instruction: str, shape: PolicyShape) -> Observation:
        """See `ServingProtocol.blank`."""
        return Observation.of_camera(np.zeros((*shape.content, 3), np.uint8), instruction, source="warm-up")


def _picture(observation: Observation) -> Image:
    if observation.has_state or observation.image is None:
        raise ObservationError(
            "the observation is a robot's",
            expected="one picture and an instruction: the policy is a vehicle's, which has no state",
            got="joint and gripper positions",
            fix="leave the state out, or load the bundle of a DROID policy",
        )
    return observation.image
