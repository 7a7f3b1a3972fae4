"""Page-locked arrays of one set of shapes after the other, in memory that is used again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from motedge.runtime.cuda import Cuda
from motedge.runtime.engine import Array

# A cache line: no two arrays share one
_ALIGNMENT_BYTES = 64


class PinnedArena:
    """One block. Page-locked memory can't be given back before the context is closed, so it grows by doubling: what is
    left behind by requests of ever larger shapes is less than what the largest one takes."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._block: Array = np.empty(0, np.uint8)

    def plan(self, arrays: Mapping[str, tuple[tuple[int, ...], Any]]) -> dict[str, Array]:
        """Arrays by name, from shape and dtype; those of an earlier plan must not be used any more."""
        places, end = {}, 0
        for name, (shape, dtype) in arrays.items():
            places[name] = end
            nbytes = math.prod(shape) * np.dtype(dtype).itemsize
            end += -(-nbytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        if end > self._block.nbytes:
            # The first one as large as asked for: a robot's requests never change
            self._block = self._cuda.pinned((max(end, 2 * self._block.nbytes),), np.uint8)
        made: dict[str, Array] = {}
        for name, (shape, dtype) in arrays.items():
            nbytes = math.prod(shape) * np.dtype(dtype).itemsize
            made[name] = self._block[places[name] : places[name] + nbytes].view(dtype).reshape(shape)
        return made
