"""The reasoner's towers on a GPU for a library that must be called from one thread, by callers that come from many."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Optional, TypeVar

from motedge.runtime.engine import FloatArray
from motedge.runtime.reasoner.device_towers import DeviceTowers
from motedge.runtime.reasoner.ports import VisualTokens
from motedge.runtime.reasoner.visual_input import VisualInput

_Result = TypeVar("_Result")


class OneThreadTowers:
    """Other towers, made, used and closed in one thread of their own: onnxruntime keeps what it holds by thread."""

    # It captures graphs of its own in CUDA's global mode, in which calls of other threads fail
    aside = False

    def __init__(self, make: Callable[[], DeviceTowers]) -> None:
        """`make`: opens the towers; what it raises comes through."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="motedge-reasoner")
        try:
            self._towers = self._call(make)
        except BaseException:
            self._thread.shutdown()
            raise
        self.host_und = self._towers.host_und
        self._closed = False

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
        return self._call(lambda: self._towers.step(embeddings, cos, sin, start, deepstack))

    def read_prompt(self, embeddings: FloatArray, cos: FloatArray, sin: FloatArray, pointer: int) -> None:
        """See `DeviceTowers.read_prompt`."""
        self._call(lambda: self._towers.read_prompt(embeddings, cos, sin, pointer))

    def encode(self, visual: VisualInput) -> VisualTokens:
        """See `EngineVision.encode`."""
        return self._call(lambda: self._towers.encode(visual))

    def memory_bytes(self) -> dict[str, int]:
        """See `DeviceTowers.memory_bytes`."""
        return self._call(self._towers.memory_bytes)

    def close(self) -> None:
        """See `DeviceTowers.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            self._call(self._towers.close)
        finally:
            self._thread.shutdown()

    def _call(self, work: Callable[[], _Result]) -> _Result:
        return self._thread.submit(work).result()
