"""Uploads of ordinary arrays, for what happens once and not at every tick."""

from __future__ import annotations

import numpy as np

from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.engine import Array

_CHUNK_BYTES = 4 << 20


class Staging:
    """One page-locked array through which everything goes, piece by piece."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._pinned: Array = cuda.pinned((_CHUNK_BYTES,), np.uint8)

    def upload(self, pointer: int, value: Array, stream: Stream) -> None:
        """Copies `value` to the device and waits for it."""
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        for start in range(0, flat.size, _CHUNK_BYTES):
            piece = flat[start : start + _CHUNK_BYTES]
            self._pinned[: piece.size] = piece
            self._cuda.copy(pointer + start, self._pinned.ctypes.data, piece.size, stream)
            stream.synchronize()

    def download(self, value: Array, pointer: int, stream: Stream) -> None:
        """Fills `value`, contiguous, from the device."""
        flat = value.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, _CHUNK_BYTES):
            piece = flat[start : start + _CHUNK_BYTES]
            self._cuda.copy(self._pinned.ctypes.data, pointer + start, piece.size, stream)
            stream.synchronize()
            piece[...] = self._pinned[: piece.size]
