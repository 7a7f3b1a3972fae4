"""What one process holds of a GPU's memory, by purpose: for errors, for the account, and to see that all came back."""

from __future__ import annotations

import threading

from motedge.errors import InternalError

# Purpose under which page-locked host memory is counted: on a Jetson it is the same memory
PINNED = "pinned host memory"


class Ledger:
    """Bytes held, by purpose. A purpose goes with its last block, so an empty ledger means that nothing is held.

    For several threads at once.
    """

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}
        self._blocks: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, purpose: str, nbytes: int) -> None:
        """Notes a block."""
        with self._lock:
            self._bytes[purpose] = self._bytes.get(purpose, 0) + nbytes
            self._blocks[purpose] = self._blocks.get(purpose, 0) + 1

    def remove(self, purpose: str, nbytes: int) -> None:
        """Notes that a block was given back."""
        with self._lock:
            if self._blocks.get(purpose, 0) < 1 or self._bytes[purpose] < nbytes:
                raise InternalError(f"{nbytes} bytes of {purpose!r} given back that were never held")
            self._bytes[purpose] -= nbytes
            self._blocks[purpose] -= 1
            if not self._blocks[purpose]:
                del self._bytes[purpose], self._blocks[purpose]

    def clear(self) -> None:
        """Forgets everything: the context that held it is gone."""
        with self._lock:
            self._bytes.clear()
            self._blocks.clear()

    @property
    def total_bytes(self) -> int:
        """Bytes of all purposes."""
        with self._lock:
            return sum(self._bytes.values())

    def as_dict(self) -> dict[str, int]:
        """Bytes by purpose, largest first."""
        with self._lock:
            return dict(sorted(self._bytes.items(), key=lambda item: -item[1]))

    def in_words(self) -> str:
        """The largest purposes, for an error message."""
        shown = [f"{purpose} {nbytes:,}" for purpose, nbytes in self.as_dict().items()]
        if len(shown) > 6:
            shown = [*shown[:6], f"and {len(shown) - 6} more"]
        return f"{self.total_bytes:,} bytes ({', '.join(shown)})" if shown else "nothing"
