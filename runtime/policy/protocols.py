"""The protocols that policies are served by, by the name that embodiments.toml gives an embodiment's."""

from __future__ import annotations

from collections.abc import Mapping

from motedge.errors import ObservationError
from motedge.runtime.policy.droid_protocol import DroidProtocol
from motedge.runtime.policy.ego_protocol import EgoProtocol
from motedge.runtime.policy.embodiments import Embodiment, load_embodiments
from motedge.runtime.policy.serving_protocol import ServingProtocol

PROTOCOLS: Mapping[str, ServingProtocol] = {"droid": DroidProtocol(), "ego": EgoProtocol()}


def find_protocol(robot: Embodiment) -> ServingProtocol:
    """How an embodiment is served.

    Raises:
        ObservationError: it is not known how its states and actions are packed.
    """
    if robot.protocol is None:
        served = sorted(name for name, known in load_embodiments().items() if known.protocol)
        raise ObservationError(
            f"embodiment {robot.name!r} has no serving protocol here",
            expected=" or ".join(served),
            why="how its observations and actions are packed is known for these alone",
            fix="motedge generate policy takes every embodiment",
        )
    return PROTOCOLS[robot.protocol]
