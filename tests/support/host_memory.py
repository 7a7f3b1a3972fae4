"""The memory of a simulated GPU: blocks of the host's memory, found by address, with everything that a GPU's would not
forgive: use after free, copies past an end, and writes past an end (a canary behind each block).
"""

from __future__ import annotations

import bisect
import ctypes
import threading
from collections import deque
from typing import Any

import numpy as np

from motedge.runtime.cuda.errors import CudaError

ALIGNMENT = 256
# Behind each block; a kernel or an engine that writes past the end changes it
CANARY_BYTES = 256
CANARY = 0xC5
# Fresh and freed memory: NaN in fp32, fp16 and bf16, so that whoever reads it notices
POISON = 0xFF
# Freed blocks are kept for a while: their addresses must not come back as somebody else's
QUARANTINE_BYTES = 64 << 20


class Block:
    """Bytes of host memory at an aligned address, poisoned."""

    def __init__(self, nbytes: int, purpose: str, pinned: bool) -> None:
        self.nbytes, self.purpose, self.pinned = nbytes, purpose, pinned
        self._raw = np.empty(nbytes + CANARY_BYTES + ALIGNMENT, np.uint8)
        offset = -self._raw.ctypes.data % ALIGNMENT
        self.pointer: int = self._raw.ctypes.data + offset
        self.data = self._raw[offset : offset + nbytes]
        self._canary = self._raw[offset + nbytes : offset + nbytes + CANARY_BYTES]
        self.data[:] = 0 if pinned else POISON
        self._canary[:] = CANARY

    def check_canary(self) -> None:
        """Raises CudaError where something wrote past the end."""
        if (self._canary != CANARY).any():
            raise CudaError(f"something wrote past the end of {self.purpose!r} ({self.nbytes} bytes)")


class HostMemory:
    """All live blocks of a simulated GPU and its pinned arrays."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._blocks: dict[int, Block] = {}
        self._quarantine: deque[Block] = deque()
        self._quarantined_bytes = 0
        # Several handles of one GPU may be used by several threads
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, nbytes: int, purpose: str, pinned: bool = False) -> Block:
        """A new block."""
        block = Block(nbytes, purpose, pinned)
        with self._lock:
            bisect.insort(self._starts, block.pointer)
            self._blocks[block.pointer] = block
        return block

    def remove(self, pointer: int) -> None:
        """Frees a block. Raises CudaError if something wrote past its end."""
        with self._lock:
            block = self._blocks.pop(pointer)
            self._starts.remove(pointer)
            block.data[:] = POISON
            self._quarantine.append(block)
            self._quarantined_bytes += block.nbytes
            while self._quarantined_bytes > QUARANTINE_BYTES:
                self._quarantined_bytes -= self._quarantine.popleft().nbytes
        block.check_canary()

    def check(self, pointer: int, nbytes: int, what: str, device_only: bool = False) -> Block:
        """The block that holds this range whole. Raises CudaError where none does."""
        with self._lock:
            index = bisect.bisect_right(self._starts, pointer) - 1
            block = self._blocks[self._starts[index]] if index >= 0 else None
        if nbytes < 0 or block is None or pointer + nbytes > block.pointer + block.nbytes:
            raise CudaError(f"{what}: {self._where(pointer, nbytes, block)}")
        if device_only and block.pinned:
            raise CudaError(f"{what}: {nbytes} bytes at {pointer:#x} are pinned host memory, not the device's")
        return block

    def _where(self, pointer: int, nbytes: int, near: Any) -> str:
        freed = [b for b in self._quarantine if b.pointer <= pointer < b.pointer + max(b.nbytes, 1)]
        if near is not None and pointer < near.pointer + near.nbytes:
            past = pointer + nbytes - near.pointer - near.nbytes
            return f"{nbytes} bytes at {pointer:#x} reach {past} past the end of {near.purpose!r}"
        if freed:
            return f"{nbytes} bytes at {pointer:#x} lie in {freed[-1].purpose!r}, which was freed"
        return f"{nbytes} bytes at {pointer:#x} lie in no block and no pinned array"

    def view(self, pointer: int, shape: Any, dtype: Any) -> np.ndarray[Any, Any]:
        """The memory as an array that shares it."""
        wanted = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        nbytes = int(np.prod(shape, dtype=np.int64)) * wanted.itemsize
        self.check(pointer, nbytes, "view")
        if nbytes == 0:
            return np.empty(shape, wanted)
        raw = (ctypes.c_uint8 * nbytes).from_address(pointer)
        return np.frombuffer(raw, dtype=wanted).reshape(shape)

    def check_canaries(self) -> None:
        """Raises CudaError where something wrote past the end of a live block."""
        for block in list(self._blocks.values()):
            block.check_canary()
