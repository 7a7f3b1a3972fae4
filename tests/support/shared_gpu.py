"""One simulated GPU of which each `open_cuda` gives a handle, as of a process's one primary context.

    gpu = SharedGpu(monkeypatch)          # what motedge opens from now on is on it
    ...
    gpu.check_closed()                    # nothing is left on it

Handles share the memory, so that what one writes another reads. Each has streams, a ledger and a stub of TensorRT of
its own, whose engines take as much memory as their graphs' weights; onnxruntime's CUDA provider is the CPU's, enqueued
as work, and takes none.
"""

from __future__ import annotations

import functools
import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import onnx
import pytest
from host_cuda import HostCuda
from host_memory import HostMemory
from tensorrt_runtime_stub import make_plan, stage_of, stub_library

from motedge.bundle import Bundle
from motedge.files import write_json
from motedge.runtime.backends.onnxruntime_cuda import engine as ort_cuda
from motedge.runtime.backends.onnxruntime_cuda.provider import Provider
from motedge.runtime.backends.tensorrt import find
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.engine_files import EngineFile, EngineFiles
from motedge.runtime.engine_files.gate import this_platform

VERSION = "10.13"
# Where open_cuda was imported to
_OPENERS = (
    "motedge.runtime.generate.device_parts",
    "motedge.runtime.policy.device_loader",
    "motedge.runtime.reasoner.device_loader",
)


class SharedHandle(HostCuda):
    """A handle; says what was left on it when it was closed."""

    def __init__(self, gpu: SharedGpu, total_bytes: int, kernels: Optional[Mapping[str, Any]]) -> None:
        super().__init__(total_bytes, kernels, deferred=True)
        self.memory, self._gpu = gpu.memory, gpu
        self.library = stub_library(gpu.version, self)
        self.left: dict[str, int] = {}

    def _free_and_total(self) -> tuple[int, int]:
        total = self.facts.total_memory_bytes
        ledgers = [handle.ledger for handle in self._gpu.handles if not handle.closed]
        held = sum(n for ledger in ledgers for purpose, n in ledger.items() if purpose != PINNED)
        return total - held - self._gpu.weights_bytes, total

    def close(self) -> None:
        if not self.closed:
            self.left = dict(self.ledger)
        super().close()


class SharedGpu:
    """See the module's text. `handles`: in the order in which they were opened."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        total_bytes: int = 1 << 31,
        kernels: Optional[Mapping[str, Any]] = None,
        version: str = VERSION,
        openers: Sequence[str] = (),
    ) -> None:
        """`openers`: further modules that hold open_cuda by name."""
        self.memory, self.handles, self.version = HostMemory(), list[SharedHandle](), version
        self.asked: list[dict[str, Any]] = []

        def open_cuda(*_: Any, **options: Any) -> SharedHandle:
            self.asked.append(options)
            self.handles.append(SharedHandle(self, total_bytes, kernels))
            return self.handles[-1]

        for name in (*_OPENERS, "motedge.runtime.cuda.choose", *openers):
            __import__(name)
            monkeypatch.setattr(sys.modules[name], "open_cuda", open_cuda)
        monkeypatch.setattr(find, "find_library", lambda name: self.handles[-1].library)
        provider = Provider("CPUExecutionProvider", "cpu", lambda stream, run: stream._cuda.enqueue(stream, run))
        monkeypatch.setattr(ort_cuda, "Provider", lambda: provider)

    @property
    def weights_bytes(self) -> int:
        """Of all engines that are loaded."""
        engines = [engine for handle in self.handles for engine in stage_of(handle.library).engines]
        return sum(weights_bytes(engine.stub_graph.says["model"]) for engine in engines)

    def check_closed(self) -> None:
        for handle in self.handles:
            assert handle.closed and set(handle.left) <= {PINNED}, handle.left
            stage = stage_of(handle.library)
            assert not stage.contexts and not stage.engines


@functools.cache
def weights_bytes(model: str) -> int:
    """Of a graph, those in other files included."""
    graph = onnx.load(model, load_external_data=False).graph
    kinds = ((tensor.dims, onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)) for tensor in graph.initializer)
    return sum(math.prod(dims) * kind.itemsize for dims, kind in kinds)


def add_engines(
    bundle: Path, graphs: Sequence[str], variant: str = "primitive-fp32", version: str = VERSION
) -> EngineFiles:
    """Puts "engines" of TensorRT into a bundle, as `motedge build` would; onnxruntime computes them."""
    opened, folder = Bundle.open(bundle), bundle / "engines" / "h100"
    folder.mkdir(parents=True, exist_ok=True)
    files = EngineFiles(folder, "h100", ())
    for graph in graphs:
        made = "primitive-fp32" if graph == "solver_step" else variant
        plan = make_plan(bundle / opened.variant(graph, made).file, opened.contract(graph))
        name = f"{graph}.{made}.engine"
        (folder / name).write_bytes(plan)
        facts: dict[str, Any] = dict.fromkeys(("seconds", "peak_memory_bytes", "device_memory_bytes"), 1)
        facts.update(bytes=len(plan), sha256=hashlib.sha256(plan).hexdigest(), source="0" * 64, settings={})
        facts.update(builder="tensorrt", builder_version=stub_library(version, HostCuda()).version)
        facts.update(compute_capabilities=("9.0",), platform=this_platform(), created="2026-11-01T00:00:00+00:00")
        files = files.with_engine(EngineFile(graph, made, name, peak_anonymous_bytes=None, **facts))
    write_json(folder / "build.json", files.to_dict())
    return files
