"""A client's message as a request to the policy: which key is which camera, and what else may be asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np

from motedge.client import protocol
from motedge.errors import ObservationError, UsageError, closest
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.observation import Observation
from motedge.serve.observed_keys import CAMERAS, DROID_KEYS

RequestId = Union[int, str, None]
_ID_CHARACTERS_MAX = 128
_SEEDS = 1 << 32


@dataclass(frozen=True, eq=False)
class PolicyRequest:
    """What one message asks for."""

    observation: Observation
    request_id: RequestId = None
    # From the message's arrival; None: the server's own, if it has one
    deadline_ms: Optional[float] = None
    # fp32 [n, fields]
    committed: Optional[FloatArray] = None
    seed: Optional[int] = None


def request_id_of(message: Any) -> RequestId:
    """What the answer repeats, be it one or an error; None if the message says nothing that could be.

    A message that is otherwise wrong is still answered by its name.
    """
    found = message.get(protocol.REQUEST_ID) if isinstance(message, Mapping) else None
    if isinstance(found, str):
        return found[:_ID_CHARACTERS_MAX]
    return int(found) if isinstance(found, (int, np.integer)) and not isinstance(found, bool) else None


def request_from_message(
    message: Any, image_pixels: int, source: str, keys: Sequence[str] = DROID_KEYS
) -> PolicyRequest:
    """The request.

    Args:
        message: as `motedge.client.wire.unpack` returns it; see `motedge.client.protocol`.
        image_pixels: a picture has at most so many.
        source: whose it is, in words; a chunk keeps it.
        keys: what an observation of the policy may hold, as its metadata say.

    Raises:
        ObservationError: something that the policy can't take, or that is missing.
        UsageError: a `motedge/` key that is unknown or holds nonsense.
    """
    if not isinstance(message, Mapping):
        raise ObservationError(
            "the message is not an observation", expected="a map", got=type(message).__name__, fix="see docs/serve.md"
        )
    for key in message:
        if isinstance(key, str) and key.startswith(protocol.PREFIX) and key not in protocol.REQUEST_KEYS:
            raise UsageError(f"unknown key {key!r}", fix=closest(key, protocol.REQUEST_KEYS))
    _refuse_others(message, keys)
    needed = {key: _required(message, key, keys) for key in (protocol.JOINTS, protocol.GRIPPER) if key in keys}
    observation = Observation(
        joint_position=_row(needed.get(protocol.JOINTS)),
        gripper_position=needed.get(protocol.GRIPPER),
        instruction=_required(message, protocol.PROMPT, keys),
        source=source,
        **_pictures(message, image_pixels, keys),
    )
    return PolicyRequest(
        observation=observation,
        request_id=request_id_of(message),
        deadline_ms=_deadline_ms(message.get(protocol.DEADLINE_MS)),
        committed=_committed(message.get(protocol.COMMITTED)),
        seed=_seed(message.get(protocol.SEED)),
    )


def _refuse_others(message: Mapping[Any, Any], keys: Sequence[str]) -> None:
    """Keys of another embodiment's observation; what no protocol knows is left alone."""
    wrong = [key for key in DROID_KEYS if key not in keys and message.get(key) is not None]
    if wrong:
        raise ObservationError(
            "the observation is another embodiment's",
            expected=", ".join(keys),
            got=", ".join(wrong),
            why="this server's policy has no place for it: its metadata say what it drives",
            fix="connect to a server of your robot's policy, and give RemotePolicy what to expect",
        )


def _required(message: Mapping[Any, Any], key: str, keys: Sequence[str]) -> Any:
    # A key without a value says as little as none
    if message.get(key) is None:
        others = [name for name in message if isinstance(name, str) and name not in keys]
        near = [name for name in others if name.split("/")[-1][:5] == key.split("/")[-1][:5]]
        raise ObservationError(
            f"the observation has no {key!r}",
            expected=", ".join(keys),
            got=", ".join(repr(name)[:60] for name in _told(message)[:12]) or "nothing",
            fix=f"rename {near[0][:60]!r}" if near else None,
        )
    return message[key]


def _told(message: Mapping[Any, Any]) -> list[Any]:
    """Keys that have a value."""
    return [name for name, value in message.items() if value is not None]


def _row(value: Any) -> Any:
    """One state, also where it comes as a sequence of one."""
    if isinstance(value, list):
        # Whatever is in it is for the observation to judge
        return value[0] if len(value) == 1 and isinstance(value[0], (list, np.ndarray)) else value
    return value[0] if isinstance(value, np.ndarray) and value.ndim == 2 and len(value) == 1 else value


def _pictures(message: Mapping[Any, Any], image_pixels: int, keys: Sequence[str]) -> dict[str, Any]:
    given = {key: message[key] for key in (protocol.IMAGE, *CAMERAS) if message.get(key) is not None}
    for key, picture in given.items():
        if isinstance(picture, np.ndarray) and picture.ndim >= 2 and math.prod(picture.shape[:2]) > image_pixels:
            raise ObservationError(
                f"{key} is too large", expected=f"at most {image_pixels} pixels", got=list(picture.shape)
            )
    image = given.pop(protocol.IMAGE, None)
    if image is not None:
        if given:
            raise ObservationError(
                "a composed image and cameras at once", expected="one or the other", got=", ".join(given)
            )
        return {"image": image}
    if not given:
        _required(message, protocol.IMAGE, keys)
    return {"views": _views(given)}


def _views(given: Mapping[str, Any]) -> dict[str, Any]:
    """Camera name -> picture. openpi counts the cameras beside the robot from 1, RoboArena from 0."""
    if protocol.EXTERIOR_0 in given and protocol.EXTERIOR_2 in given:
        raise ObservationError(
            "the exterior cameras are counted from 0 and from 1",
            expected=f"0 and 1 (left, right), or 1 and 2: {protocol.EXTERIOR_1} is right or left accordingly",
            got="0 and 2",
        )
    from_0 = protocol.EXTERIOR_0 in given
    left, right = (protocol.EXTERIOR_0, protocol.EXTERIOR_1) if from_0 else (protocol.EXTERIOR_1, protocol.EXTERIOR_2)
    keys = {"wrist": protocol.WRIST, "left": left, "right": right}
    return {name: given[key] for name, key in keys.items() if key in given}


def _deadline_ms(value: Any) -> Optional[float]:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < float(value) < math.inf:
        raise UsageError(f"{protocol.DEADLINE_MS} is no deadline", expected="ms, over 0", got=repr(value)[:80])
    return float(value)


def _committed(value: Any) -> Optional[FloatArray]:
    if value is None:
        return None
    try:
        # What is too large becomes infinite, which the policy refuses
        with np.errstate(over="ignore"):
            actions = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{protocol.COMMITTED} is no array", expected="float [n, fields]", got=repr(value)[:80]
        ) from error
    # Its shape is checked by the policy, which knows the width
    return actions if actions.size else None


def _seed(value: Any) -> Optional[int]:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= int(value) < _SEEDS:
        raise UsageError(f"{protocol.SEED} is no seed", expected="0 to 2^32 - 1", got=repr(value)[:80])
    return int(value)
