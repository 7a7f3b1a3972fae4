"""DROID robots: three cameras composed into one picture, seven joints and a gripper in row 0, joint commands back."""

from __future__ import annotations

from typing import Optional

import numpy as np

from motedge.errors import ObservationError
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.droid import JOINTS, pack_committed, pack_state, unpack_actions
from motedge.runtime.policy.embodiments import Embodiment
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.prompt import Clip, build_prompt
from motedge.runtime.policy.resize import Image, resize_bilinear
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.policy.views import COMPOSED_SIZE, compose_views


class DroidProtocol:
    """A `ServingProtocol`, as cosmos-framework's policy server at 5eee9ed."""

    state_rows = 1
    kernels = True

    def image_size(self, shape: PolicyShape) -> tuple[int, int]:
        """See `ServingProtocol.image_size`: 540 x 640, whatever the model's content is."""
        return COMPOSED_SIZE

    def image(self, observation: Observation, shape: PolicyShape) -> tuple[Image, tuple[str, ...]]:
        """See `ServingProtocol.image`."""
        _require(observation)
        if observation.image is not None:
            return resize_bilinear(observation.image, shape.content), ()
        image, missing = compose_views(observation.host_views())
        return resize_bilinear(image, shape.content), missing

    def prompt(self, instruction: str, clip: Clip, robot: Embodiment, prompt_format: str) -> str:
        """See `ServingProtocol.prompt`."""
        return build_prompt(instruction, clip, prompt_format)

    def rows(self, observation: Observation, committed: Optional[FloatArray], *, rows: int, width: int) -> FloatArray:
        """See `ServingProtocol.rows`."""
        _require(observation)
        packed = pack_state(observation.joint_position, observation.gripper_position, rows=rows, width=width)
        if committed is not None:
            pack_committed(packed, np.asarray(committed, np.float32))
        return packed

    def actions(self, rows: FloatArray) -> FloatArray:
        """See `ServingProtocol.actions`."""
        return unpack_actions(rows)

    def blank(self, instruction: str, shape: PolicyShape) -> Observation:
        """See `ServingProtocol.blank`."""
        black = np.zeros((*COMPOSED_SIZE, 3), np.uint8)
        return Observation(np.zeros(JOINTS), 0.0, instruction, image=black, source="warm-up")


def _require(observation: Observation) -> None:
    if not observation.has_state:
        raise ObservationError(
            "the observation has no robot state",
            expected="joint_position (7 angles in rad) and gripper_position (fraction closed): the policy is a DROID's",
            got="a picture and an instruction, as for a vehicle (embodiment av)",
            fix="give the state, or load the bundle of a policy that takes none",
        )
