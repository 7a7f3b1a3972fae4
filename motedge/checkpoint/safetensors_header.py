"""The safetensors file header: an 8-byte little-endian length, then JSON of name -> dtype, shape, byte range."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motedge.checkpoint.keys import Shape
from motedge.errors import CheckpointError

DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_ALIGNMENT = 8  # the format pads the header with spaces so that the data starts aligned


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies."""

    file: Path
    # As the format writes it: "BF16", "F32", ...
    dtype: str
    shape: Shape
    # Absolute byte offset in the file
    offset: int
    # Length in bytes
    size: int


def read_header(path: Path) -> tuple[dict[str, TensorEntry], bytes]:
    """Reads and checks one file's header, without its data.

    Returns:
        Its tensors by name, and the header's own bytes (for fingerprints).

    Raises:
        CheckpointError: the file is missing, truncated, not safetensors, or contradicts itself.
    """
    try:
        file_size = path.stat().st_size
        with open(path, "rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= length <= _MAX_HEADER_BYTES or 8 + length > file_size:
                raise _damaged(path, "a header length that fits the file", f"{length} in a file of {file_size} bytes")
            raw = stream.read(length)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"a weight file is missing: {path}", fix="fetch the checkpoint again; finished files are not repeated"
        ) from error
    try:
        header: dict[str, Any] = json.loads(raw)
        header.pop("__metadata__", None)
        entries = {name: _entry(path, name, item, 8 + length) for name, item in header.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "a JSON header of tensors", f"{type(error).__name__}: {error}") from error
    end = max((entry.offset + entry.size for entry in entries.values()), default=8 + length)
    if end != file_size:
        raise _damaged(path, f"{end} bytes", f"{file_size} bytes")
    return entries, raw


def write_header(tensors: Mapping[str, tuple[str, Shape]]) -> bytes:
    """The bytes of a file's beginning: tensors lie one after another in the order given.

    Args:
        tensors: name -> (dtype as the format writes it, shape).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, (dtype, shape) in tensors.items():
        end = begin + DTYPE_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _entry(path: Path, name: str, item: Mapping[str, Any], data_start: int) -> TensorEntry:
    begin, end = item["data_offsets"]
    shape, dtype = tuple(item["shape"]), item["dtype"]
    expected = math.prod(shape) * DTYPE_BYTES.get(dtype, 0)
    if dtype in DTYPE_BYTES and end - begin != expected:
        raise _damaged(path, f"{expected} bytes for {name!r} {dtype} {list(shape)}", f"{end - begin} bytes")
    return TensorEntry(path, dtype, shape, data_start + begin, end - begin)


def _damaged(path: Path, expected: str, got: str) -> CheckpointError:
    return CheckpointError(
        f"a weight file is truncated or damaged: {path}",
        expected=expected,
        got=got,
        fix="delete that file and fetch the checkpoint again",
    )
