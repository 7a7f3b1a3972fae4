"""A bundle's graphs on a GPU for what runs beside the loop: one context, one stream, one workspace."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from motedge.bundle import Bundle
from motedge.runtime.backends.device_registry import ONNXRUNTIME_CUDA, open_device_engine
from motedge.runtime.backends.onnxruntime_cuda.settings import CudaSettings
from motedge.runtime.cuda import Cuda
from motedge.runtime.cuda.errors import CudaError
from motedge.runtime.device.chunk_stream import DeviceChunks
from motedge.runtime.device.host_engine import HostEngine
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceEngine
from motedge.runtime.engine import Engine
from motedge.runtime.policy.gpu_options import GpuOptions
from motedge.runtime.vae.chunks import Chunks


class DeviceGraphs:
    """A `motedge.runtime.vae.loader.GraphSource`. Takes over the context, and closes it last."""

    def __init__(self, bundle: Bundle, cuda: Cuda, choice: Mapping[str, Any], gpu: GpuOptions) -> None:
        """`choice`: backend, variant, recipe and options, as `open_device_engine` takes them. To be made inside
        `cuda.current()`."""
        self._bundle, self.cuda, self._choice, self._gpu = bundle, cuda, dict(choice), gpu
        self.stream, self.workspace = cuda.stream(gpu.priority), Workspace(cuda)
        # It can't free a CUDA graph of its own, and requests change their shapes all the time
        self._settings = CudaSettings(cuda_graph="off") if choice["backend"] == ONNXRUNTIME_CUDA else None
        self._weights_bytes: dict[str, int] = {}
        self._own: list[DeviceEngine] = []

    def load(self, graph: str) -> DeviceEngine:
        """An engine that is closed with this."""
        engine = self._open(graph)
        self._own.append(engine)
        return engine

    def engine(self, graph: str) -> Engine:
        """See `GraphSource.engine`. Inputs are uploaded and outputs downloaded at each run."""
        return HostEngine(self._open(graph), self.cuda, stream=self.stream, workspace=self.workspace)

    def chunks(self, first: str, following: str) -> Chunks:
        """See `GraphSource.chunks`. The caches between chunks stay on the GPU."""
        with contextlib.ExitStack() as opened:
            engines = []
            for graph in (first, following):
                engines.append(self._open(graph))
                opened.callback(engines[-1].close)
            made = DeviceChunks(self.cuda, engines[0], engines[1], self.workspace, self.stream)
            opened.pop_all()
        return made

    def memory_bytes(self) -> dict[str, int]:
        """What is held of the GPU's memory, by purpose; weights as near as the libraries tell."""
        return {**{f"weights of {graph}": size for graph, size in self._weights_bytes.items()}, **self.cuda.ledger}

    def close(self) -> None:
        """Frees workspace, engines and, whatever fails, the context; harmless when repeated."""
        with contextlib.ExitStack() as steps:
            # Called in reverse, each even if another fails
            steps.callback(self.cuda.close)
            # Of a lost context nothing can be freed, but what the objects hold of the host can
            with contextlib.suppress(CudaError):
                steps.enter_context(self.cuda.current())
            for engine in self._own:
                steps.callback(engine.close)
            steps.callback(self.workspace.free)
            self._own = []

    def _open(self, graph: str) -> DeviceEngine:
        with self.cuda.current():
            engine = open_device_engine(
                self._bundle,
                graph,
                self.cuda,
                stream=self.stream,
                settings=self._settings,
                **self._gpu.engine_options(graph),
                **self._choice,
            )
        self._weights_bytes[graph] = engine.weight_bytes
        return engine
