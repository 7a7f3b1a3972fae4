"""An observation of a DROID robot as the map that a policy server takes."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.client import protocol
from motedge.errors import ObservationError


def droid_observation(
    joint_position: Any,
    gripper_position: float,
    prompt: str,
    *,
    wrist: Optional[NDArray[np.uint8]] = None,
    left: Optional[NDArray[np.uint8]] = None,
    right: Optional[NDArray[np.uint8]] = None,
    image: Optional[NDArray[np.uint8]] = None,
) -> dict[str, Any]:
    """The map; what is in it is checked by the server.

    Args:
        joint_position: 7 angles in rad, base to wrist.
        gripper_position: fraction closed.
        prompt: what to do, in words.
        wrist: camera of the hand, uint8 RGB [rows, columns, 3]; missing cameras are seen as black.
        left: over the left shoulder, likewise.
        right: over the right shoulder, likewise.
        image: the composed image instead of cameras, uint8 RGB [540, 640, 3].

    Raises:
        ObservationError: cameras and a composed image, or none of either.
    """
    views = {protocol.WRIST: wrist, protocol.EXTERIOR_1: left, protocol.EXTERIOR_2: right}
    given = {key: view for key, view in views.items() if view is not None}
    if (image is None) == (not given):
        raise ObservationError(
            "an observation needs either cameras or a composed image", got="none" if image is None else "both"
        )
    return {
        **({protocol.IMAGE: image} if image is not None else given),
        # A copy: the robot's loop goes on while this is sent
        protocol.JOINTS: np.array(joint_position, np.float32),
        protocol.GRIPPER: np.array([gripper_position], np.float32),
        protocol.PROMPT: prompt,
    }
