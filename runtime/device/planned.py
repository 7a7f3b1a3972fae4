"""Many tensors in one block of device memory, planned from their sizes before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping

from motedge.errors import InternalError
from motedge.runtime.cuda import Cuda
from motedge.runtime.cuda.interface import ALIGNMENT_BYTES


class PlannedBlock:
    """One allocation, a place for each name."""

    def __init__(self, cuda: Cuda, sizes_bytes: Mapping[str, int], purpose: str) -> None:
        """Allocates the sum of `sizes_bytes`, each rounded up to the alignment.

        Raises:
            OutOfDeviceMemoryError: names `purpose`.
        """
        self._places: dict[str, tuple[int, int]] = {}
        offset = 0
        for name, size in sizes_bytes.items():
            self._places[name] = offset, size
            # Even an empty tensor has an address of its own
            offset += -(-max(size, 1) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        self.nbytes = offset
        self._memory = cuda.allocate(max(offset, ALIGNMENT_BYTES), purpose)

    def pointer(self, name: str) -> int:
        """The address of a tensor."""
        return self._memory.pointer + self._place(name)[0]

    def size_bytes(self, name: str) -> int:
        """The planned size of a tensor, without what was added for alignment."""
        return self._place(name)[1]

    def free(self) -> None:
        """Gives the block back; harmless when repeated."""
        self._memory.free()

    def _place(self, name: str) -> tuple[int, int]:
        if name not in self._places:
            raise InternalError(f"no tensor {name!r} was planned, only {', '.join(self._places)}")
        return self._places[name]
