"""Activation memory that engines share which never run at the same time."""

from __future__ import annotations

from typing import Optional

from motedge.runtime.cuda import Cuda, DeviceMemory
from motedge.runtime.device_engine import DeviceContext


class Workspace:
    """One block, as large as the largest need so far.

    It grows when a context needs more; then `generation` rises, and whatever holds the old address (contexts, captured
    graphs) must be made anew. `cover` at the start, with contexts of the largest shapes, keeps that from happening.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._memory: Optional[DeviceMemory] = None
        self.generation = 0

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 0 if self._memory is None else self._memory.nbytes

    def cover(self, nbytes: int) -> None:
        """Makes it at least this large. Nothing may be running on it."""
        if nbytes <= self.nbytes:
            return
        self.free()
        self._memory = self._cuda.allocate(nbytes, "activations")

    def lend(self, context: DeviceContext) -> None:
        """Gives the block to a context, after growing it if need be."""
        self.cover(context.activation_bytes)
        if self._memory is not None and context.activation_bytes:
            context.use_activation_memory(self._memory.pointer, self._memory.nbytes)

    def free(self) -> None:
        """Gives the block back; harmless when repeated."""
        if self._memory is not None:
            self._memory.free()
            self._memory = None
            # Even if no larger block can be had: nothing may use the old address
            self.generation += 1
