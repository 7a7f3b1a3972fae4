"""The reasoner's towers on a GPU for a library that must be called from one thread, by callers that come from many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from motedge.runtime.engine import FloatArray
from motedge.runtime.one_thread import OneThread
from motedge.runtime.reasoner.device_towers import DeviceTowers
from motedge.runtime.reasoner.ports import VisualTokens
from motedge.runtime.reasoner.visual_input import VisualInput


class OneThreadTowers:
    """Other towers, made, used and closed in one thread of their own; see `OneThread`."""

    # It captures graphs of its own in CUDA's global mode (its cuda_graph.cc), in which calls of other threads fail
    aside = False

    def __init__(self, make: Callable[[], DeviceTowers]) -> None:
        """`make`: opens the towers; what it raises comes through."""
        self._thread = OneThread("motedge-reasoner", "the reasoner")
        try:
            self._towers = self._thread.call(make)
        except BaseException:
            self._thread.close()
            raise
        self.host_und = self._towers.host_und

    @property
    def ordinal(self) -> int:
        """See `DeviceTowers.ordinal`."""
        return self._towers.ordinal

    @property
    def capacity(self) -> int:
        """See `UndStep.capacity`."""
        return self._towers.capacity

    @property
    def max_new(self) -> int:
        """See `UndStep.max_new`."""
        return self._towers.max_new

    @property
    def launch(self) -> str:
        """See `DeviceUnd.launch`."""
        return self._towers.launch

    def step(
        self,
        embeddings: FloatArray,
        cos: FloatArray,
        sin: FloatArray,
        start: int,
        deepstack: Optional[FloatArray],
    ) -> FloatArray:
        """See `DeviceUnd.step`."""
        return self._thread.call(lambda: self._towers.step(embeddings, cos, sin, start, deepstack))

    def read_prompt(self, embeddings: FloatArray, cos: FloatArray, sin: FloatArray, pointer: int) -> None:
        """See `DeviceTowers.read_prompt`."""
        self._thread.call(lambda: self._towers.read_prompt(embeddings, cos, sin, pointer))

    def encode(self, visual: VisualInput) -> VisualTokens:
        """See `EngineVision.encode`."""
        return self._thread.call(lambda: self._towers.encode(visual))

    def memory_bytes(self) -> dict[str, int]:
        """See `DeviceTowers.memory_bytes`."""
        return self._thread.call(self._towers.memory_bytes)

    def close(self) -> None:
        """See `DeviceTowers.close`."""
        self._thread.close(self._towers.close)
