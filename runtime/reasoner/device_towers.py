"""The reasoner's engines on a GPU, behind the ports of its loop; what holds them, and gives everything back."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Optional

from motedge.runtime.cuda import Cuda
from motedge.runtime.cuda.errors import CudaError
from motedge.runtime.cuda.graph import CAPTURES
from motedge.runtime.device.host_engine import HostEngine
from motedge.runtime.device_engine import DeviceEngine
from motedge.runtime.engine import FloatArray
from motedge.runtime.reasoner.device_und import DeviceUnd
from motedge.runtime.reasoner.ports import VisualTokens
from motedge.runtime.reasoner.vision_engine import EngineVision
from motedge.runtime.reasoner.visual_input import VisualInput


class DeviceTowers:
    """`UndStep` and `VisionTower`. Takes over everything it is given and closes it, the CUDA context last.

    Several threads may call it, in the order in which they came: one that reasons and one that reads prompts.
    """

    # Prompts are read on a stream and in buffers of its own, in whichever thread
    aside = True

    def __init__(
        self,
        cuda: Cuda,
        engines: Sequence[DeviceEngine],
        und: DeviceUnd,
        vision: EngineVision,
        host_und: HostEngine,
        parts: contextlib.ExitStack,
    ) -> None:
        """Takes the parts.

        Args:
            cuda: the context.
            engines: whose weights count in `memory_bytes`.
            und: the understanding tower with its K and V.
            vision: the vision encoder.
            host_und: und's engine with numpy arrays on the outside, for others who run it.
            parts: frees all of them, called inside `cuda.current()`; not the context.
        """
        self.host_und = host_und
        self._cuda, self._engines, self._und, self._vision, self._parts = cuda, tuple(engines), und, vision, parts
        # Beside a policy's captures nothing of it runs
        self._lock = CAPTURES
        self._closed = False

    @property
    def ordinal(self) -> int:
        """The GPU's number."""
        return self._cuda.facts.ordinal

    @property
    def capacity(self) -> int:
        """See `UndStep.capacity`."""
        return self._und.capacity

    @property
    def max_new(self) -> int:
        """See `UndStep.max_new`."""
        return self._und.max_new

    @property
    def launch(self) -> str:
        """See `DeviceUnd.launch`."""
        return self._und.launch

    def step(
        self,
        embeddings: FloatArray,
        cos: FloatArray,
        sin: FloatArray,
        start: int,
        deepstack: Optional[FloatArray],
    ) -> FloatArray:
        """See `DeviceUnd.step`."""
        with self._lock, self._cuda.current():
            return self._und.step(embeddings, cos, sin, start, deepstack)

    def read_prompt(self, embeddings: FloatArray, cos: FloatArray, sin: FloatArray, pointer: int) -> None:
        """See `DeviceUnd.read_prompt`. Waits for the step that another thread has under way, and no longer."""
        with self._lock, self._cuda.current():
            self._und.read_prompt(embeddings, cos, sin, pointer)

    def encode(self, visual: VisualInput) -> VisualTokens:
        """See `EngineVision.encode`."""
        with self._lock, self._cuda.current():
            return self._vision.encode(visual)

    def memory_bytes(self) -> dict[str, int]:
        """What it holds of the GPU's memory, by purpose; weights as near as the libraries tell."""
        weights = {f"weights of {engine.contract.graph}": engine.weight_bytes for engine in self._engines}
        return {**weights, **self._cuda.ledger}

    def close(self) -> None:
        """Frees everything, whatever a part of it raises; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        with self._lock, contextlib.ExitStack() as stack:
            stack.callback(self._cuda.close)
            # Of a lost context nothing can be freed, but what the objects hold of the host can
            with contextlib.suppress(CudaError):
                stack.enter_context(self._cuda.current())
            stack.callback(self._parts.close)
