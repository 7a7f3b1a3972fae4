"""One tick, and the session that it belongs to, as bytes: JSON and plain arrays, nothing that could run code.

    payload = length of the JSON u32 little endian, JSON (UTF-8), then the arrays' bytes, C order, one after the other

The JSON's "arrays" lists name, dtype, shape, bytes and whether they are deflated (zlib).
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from motedge.errors import DataError, MotedgeError
from motedge.runtime.engine import Array
from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.policy.observation import Observation
from motedge.runtime.request import SamplerSettings

SCHEMA = "motedge.recording/v1"
SESSION, TICK = "session", "tick"
_LENGTH = struct.Struct("<I")
_DTYPES = ("uint8", "float32", "float64", "int64")
# Nothing recorded is larger; a wrong header must not take all memory
_MOST_BYTES = 1 << 30
_SETTINGS = ("steps", "shift", "guidance", "guidance_interval", "step_cache")
_VIEW = "view."


@dataclass(frozen=True)
class Recorded:
    """One record, decoded."""

    # SESSION or TICK
    kind: str
    # As it was written, without the arrays
    document: Mapping[str, Any]
    arrays: Mapping[str, Array] = field(default_factory=dict)

    def observation(self) -> Observation:
        """What the policy saw.

        Raises:
            DataError: it was not recorded, or can't be one.
        """
        seen = self.document.get("observation")
        if not isinstance(seen, Mapping) or seen.get("lacks"):
            lacks = seen.get("lacks") if isinstance(seen, Mapping) else "an observation"
            raise DataError("the tick's observation is not whole", got=f"no {lacks}")
        views = {name[len(_VIEW) :]: array for name, array in self.arrays.items() if name.startswith(_VIEW)}
        try:
            return Observation(
                joint_position=self.arrays["joint_position"] if seen["gripper_position"] is not None else None,
                gripper_position=seen["gripper_position"],
                instruction=seen["instruction"],
                views=views or None,
                image=self.arrays.get("image"),
                source=seen.get("source"),
            )
        except (KeyError, MotedgeError) as error:
            raise DataError("the tick's observation is damaged", got=str(error).splitlines()[0]) from error

    def settings(self) -> SamplerSettings:
        """What the loop was told.

        Raises:
            DataError: they are damaged.
        """
        try:
            raw = dict(self.document["settings"])
            for name in ("guidance_interval", "distilled_sigmas"):
                raw[name] = None if raw.get(name) is None else tuple(raw[name])
            return SamplerSettings(**raw)
        except (KeyError, TypeError, ValueError, MotedgeError) as error:
            raise DataError("the tick's settings are damaged", got=str(error).splitlines()[0]) from error


def encode(kind: str, document: Mapping[str, Any], arrays: Optional[Mapping[str, Array]] = None) -> bytes:
    """A record's payload; large arrays are deflated where that makes them smaller."""
    listed, blobs = [], []
    for name, array in (arrays or {}).items():
        raw = np.ascontiguousarray(array).tobytes()
        packed = zlib.compress(raw, 1) if len(raw) > 4096 else raw
        deflated = len(packed) < len(raw)
        blobs.append(packed if deflated else raw)
        listed.append(
            {
                "name": name,
                "dtype": array.dtype.name,
                "shape": list(array.shape),
                "bytes": len(blobs[-1]),
                "deflated": deflated,
            }
        )
    text = json.dumps({"schema": SCHEMA, "kind": kind, **document, "arrays": listed}, allow_nan=False).encode()
    return b"".join([_LENGTH.pack(len(text)), text, *blobs])


def decode(payload: bytes) -> Recorded:
    """The record of a payload.

    Raises:
        DataError: it is none, or of a newer schema; nothing in it is trusted.
    """
    try:
        (length,) = _LENGTH.unpack_from(payload)
        document = json.loads(payload[_LENGTH.size : _LENGTH.size + length].decode())
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise ValueError(f"schema {document.get('schema') if isinstance(document, dict) else document!r}")
        arrays, offset = {}, _LENGTH.size + length
        for entry in document.pop("arrays"):
            end = offset + int(entry["bytes"])
            arrays[str(entry["name"])] = _array(payload[offset:end], entry)
            offset = end
        if offset != len(payload):
            raise ValueError(f"{len(payload)} bytes, {offset} of them described")
        return Recorded(str(document.pop("kind")), document, arrays)
    except (
        struct.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        zlib.error,
        OverflowError,
        RecursionError,
    ) as error:
        raise DataError("a record of the recording can't be read", expected=SCHEMA, got=str(error)) from error


def tick_document(
    observation: Observation,
    chunk: ActionChunk,
    settings: SamplerSettings,
    *,
    committed: Optional[Array] = None,
    prompt: Optional[str] = None,
) -> tuple[dict[str, Any], dict[str, Array]]:
    """What is recorded of a tick; the arrays are copies, for the caller may reuse its own.

    Args:
        observation: that was given.
        chunk: that came back.
        settings: of the policy; what the chunk says of its own counts instead.
        committed: actions that were given.
        prompt: the whole text that was given in place of the instruction's.
    """
    arrays: dict[str, Array] = {"actions": chunk.actions.copy()}
    if observation.has_state:
        arrays["joint_position"] = observation.joint_position.copy()
    seen: dict[str, Any] = {
        "instruction": observation.instruction,
        "gripper_position": observation.gripper_position,
        "source": observation.source,
    }
    if observation.image is not None:
        arrays["image"] = observation.image.copy()
    for name, view in (observation.views or {}).items():
        if isinstance(view, np.ndarray):
            arrays[_VIEW + name] = view.copy()
        else:
            seen["lacks"] = f"{name} image: its frame is on the GPU"
    if committed is not None and len(committed):
        arrays["committed"] = np.array(committed, np.float32)
    used = dataclasses.asdict(settings)
    used.update({name: chunk.details[name] for name in _SETTINGS if name in chunk.details})
    used["step_cache"] = None if used["step_cache"] is None else str(used["step_cache"])
    if chunk.reasoning is not None:
        # Nothing else tells it: the reasoner's reply was of that moment
        prompt = chunk.reasoning.prompt
    reply = {key: value for key, value in chunk.to_dict().items() if key not in ("schema", "actions", "fields")}
    return {"observation": seen, "settings": used, "seed": chunk.seed, "prompt": prompt, "reply": reply}, arrays


def _array(raw: bytes, entry: Mapping[str, Any]) -> Array:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"an array of {entry['dtype']}")
    dtype, shape = np.dtype(entry["dtype"]), tuple(int(size) for size in entry["shape"])
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if min(shape, default=0) < 0 or count * dtype.itemsize > _MOST_BYTES:
        raise ValueError(f"an array of shape {shape}")
    if entry["deflated"]:
        expected = count * dtype.itemsize
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(raw, expected + 1)
    return np.frombuffer(raw, dtype).reshape(shape).copy()
