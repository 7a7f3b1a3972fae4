"""Writes sharded safetensors tensor by tensor, never holding one whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Union

import numpy as np

from motedge.checkpoint.keys import Shape
from motedge.checkpoint.safetensors_header import DTYPE_BYTES, write_header
from motedge.errors import InternalError
from motedge.files import atomic_open, write_json

SHARD_BYTES = 5_000_000_000  # the published shards' limit
Chunks = Callable[[str, Shape], Iterable[np.ndarray]]
# One dtype for all tensors, or by name
Dtype = Union[str, Callable[[str], str]]


def write_component(
    folder: Path,
    stem: str,
    shapes: Mapping[str, Shape],
    dtype: Dtype,
    chunks: Chunks | None,
    *,
    shard_bytes: int = SHARD_BYTES,
    wrote: Callable[[int], object] = lambda size: None,
) -> dict[str, str]:
    """Writes one component's weights as the hub has them: one file, or shards with an index.

    Args:
        folder: where to; made if missing.
        stem: file name without `.safetensors`.
        shapes: key -> shape, in the order of the file.
        dtype: as the format writes it, e.g. "BF16"; or what gives it for a name.
        chunks: gives a tensor's bytes in pieces; None writes zero-filled holes that take no disk space.
        shard_bytes: the limit of one shard's data.
        wrote: told the number of bytes after each piece, for a progress bar.

    Returns:
        key -> file name.

    Raises:
        HostError: the disk is full or not writable; no partial file stays.
    """
    shards = plan_shards(shapes, dtype, shard_bytes)
    weight_map: dict[str, str] = {}
    for number, keys in enumerate(shards, start=1):
        name = f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(folder / name, {key: shapes[key] for key in keys}, dtype, chunks, wrote)
        weight_map.update(dict.fromkeys(keys, name))
    if len(shards) > 1:
        index = {"metadata": {"total_size": data_bytes(shapes, dtype)}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(folder / f"{stem}.safetensors.index.json", index)
    return weight_map


def plan_shards(shapes: Mapping[str, Shape], dtype: Dtype, shard_bytes: int) -> list[list[str]]:
    """Keys by shard, in order; a tensor larger than the limit gets a shard of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for key, shape in shapes.items():
        size = _bytes(key, shape, dtype)
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(key)
        filled += size
    return shards


def data_bytes(shapes: Mapping[str, Shape], dtype: Dtype) -> int:
    """Bytes of all tensors, without headers."""
    return sum(_bytes(key, shape, dtype) for key, shape in shapes.items())


def _write_file(
    path: Path, shapes: Mapping[str, Shape], dtype: Dtype, chunks: Chunks | None, wrote: Callable[[int], object]
) -> None:
    header = write_header({key: (_name(key, dtype), shape) for key, shape in shapes.items()})
    with atomic_open(path) as stream:
        stream.write(header)
        if chunks is None:
            stream.truncate(len(header) + data_bytes(shapes, dtype))
            return
        for key, shape in shapes.items():
            written = 0
            for piece in chunks(key, shape):
                stream.write(piece.data)
                written += piece.nbytes
                wrote(piece.nbytes)
            if written != _bytes(key, shape, dtype):
                raise InternalError(f"{key}: wrote {written} bytes for {_name(key, dtype)} {shape}")


def _name(key: str, dtype: Dtype) -> str:
    return dtype if isinstance(dtype, str) else dtype(key)


def _bytes(key: str, shape: Shape, dtype: Dtype) -> int:
    return DTYPE_BYTES[_name(key, dtype)] * math.prod(shape)
