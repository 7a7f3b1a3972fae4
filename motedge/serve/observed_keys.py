"""Which keys of a message are the observation of a policy, by the protocol of its embodiment."""

from __future__ import annotations

from collections.abc import Mapping

from motedge.client import protocol
from motedge.runtime.policy.embodiments import Embodiment

CAMERAS = (protocol.WRIST, protocol.EXTERIOR_0, protocol.EXTERIOR_1, protocol.EXTERIOR_2)
DROID_KEYS = (protocol.IMAGE, *CAMERAS, protocol.JOINTS, protocol.GRIPPER, protocol.PROMPT)
EGO_KEYS = (protocol.IMAGE, protocol.PROMPT)
# By the names of `motedge.runtime.policy.protocols`
KEYS: Mapping[str, tuple[str, ...]] = {"droid": DROID_KEYS, "ego": EGO_KEYS}


def observed_keys(robot: Embodiment) -> tuple[str, ...]:
    """What an observation of an embodiment that is served may hold."""
    return KEYS[robot.protocol or ""]
