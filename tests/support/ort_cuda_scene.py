"""Engines of the CUDA backend with their tensors on a GPU, beside the CPU's results: for ort_cuda_on_gpu.py."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from motedge.bundle import Bundle
from motedge.runtime.backends import open_engine
from motedge.runtime.backends.device_registry import open_device_engine
from motedge.runtime.backends.onnxruntime_cuda import CudaSettings, OnnxRuntimeCudaEngine
from motedge.runtime.backends.onnxruntime_cuda import engine as engine_module
from motedge.runtime.backends.onnxruntime_cuda.provider import Provider
from motedge.runtime.comparison import Comparison, compare
from motedge.runtime.contract_check import tensor_shapes
from motedge.runtime.device_engine import tensor_bytes
from motedge.runtime.engine import EngineOptions

Arrays = dict[str, np.ndarray[Any, Any]]
CPU_VARIANT = "primitive-fp32"
_OPTIONS = EngineOptions(check_content=False)
_NUMPY = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16, "int64": np.int64}


class Scene:
    """A bundle, a GPU (or a simulated one, with the CPU's provider, to try the program out) and the CPU's answers."""

    def __init__(self, root: str, simulate: bool) -> None:
        self.bundle, self.simulated = Bundle.open(root), simulate
        if simulate:
            from host_cuda import HostCuda

            self.cuda: Any = HostCuda(total_bytes=8 << 30)
            provider = Provider("CPUExecutionProvider", "cpu", self.cuda.enqueue)
            # What a test does with monkeypatch; this program is a process of its own
            engine_module.Provider = lambda: provider  # type: ignore[misc, assignment]
        else:
            from motedge.runtime.cuda.choose import open_cuda

            self.cuda = open_cuda()

    def variants(self, graph: str) -> list[str]:
        """Of a graph, those that travelled."""
        known = self.bundle.graph(graph).variants
        return [name for name, entry in known.items() if self.bundle.path(entry.file).is_file()]

    def best(self, graph: str) -> str:
        """The variant that speed is wanted from."""
        known = self.variants(graph)
        return next((name for name in ("fused-fp16", "primitive-fp16") if name in known), known[0])

    def engine(self, graph: str, variant: str, mode: str, **settings: Any) -> OnnxRuntimeCudaEngine:
        """An engine on the GPU."""
        asked = CudaSettings(cuda_graph=mode, **settings)
        made = open_device_engine(
            self.bundle,
            graph,
            self.cuda,
            backend="onnxruntime-cuda",
            variant=variant,
            options=_OPTIONS,
            settings=asked,
        )
        assert isinstance(made, OnnxRuntimeCudaEngine)
        return made

    def dims(self, graph: str, shorter: bool = False) -> dict[str, int]:
        """Sizes near the middle of the profile; `shorter`: with fewer tokens of the prompt."""
        profile = self.bundle.contract(graph).profile
        sizes = {letter: opt for letter, (_, opt, _) in profile.items()}
        for letter in ("U", "S"):
            if shorter and letter in sizes:
                low = profile[letter][0]
                sizes[letter] = max(low, sizes[letter] // 2)
        return sizes

    def inputs(self, graph: str, dims: Mapping[str, int], seed: int = 0) -> Arrays:
        """Random inputs, fp32, of a size that keeps the network in its range."""
        contract, random = self.bundle.contract(graph), np.random.RandomState(seed)
        shapes, arrays = tensor_shapes(contract, dims), {}
        for spec in contract.inputs:
            shape = shapes[spec.name]
            if spec.name in ("cos", "sin"):
                angle = random.uniform(0, 6, shape)
                arrays[spec.name] = np.cos(angle) if spec.name == "cos" else np.sin(angle)
            elif "noisy" in spec.name:
                arrays[spec.name] = np.r_[0.0, np.ones(max(int(np.prod(shape)) - 1, 0))].reshape(shape)
            elif spec.name == "t":
                arrays[spec.name] = np.full(shape, 640.0)
            else:
                scale = 0.05 if "weight" in spec.name else 0.5
                arrays[spec.name] = scale * random.standard_normal(shape)
        return {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}

    def on_cpu(self, graph: str, dims: Mapping[str, int], inputs: Arrays) -> Arrays:
        """The CPU's outputs in fp32."""
        engine = open_engine(self.bundle, graph, variant=CPU_VARIANT, options=_OPTIONS)
        context = engine.context(dims)
        for name, value in inputs.items():
            context.set_input(name, value)
        context.run()
        outputs = {spec.name: context.output(spec.name).copy() for spec in engine.contract.outputs}
        engine.close()
        return outputs

    def close(self) -> None:
        """The GPU too."""
        self.cuda.close()


class Tensors:
    """A context with blocks of its own for all tensors, filled and read through pinned memory."""

    def __init__(self, scene: Scene, engine: OnnxRuntimeCudaEngine, dims: Mapping[str, int]) -> None:
        self._cuda, self.engine, contract = scene.cuda, engine, engine.contract
        self.stream, self.outputs = engine.stream, [spec.name for spec in contract.outputs]
        specs = (*contract.inputs, *contract.outputs)
        self._kinds = {spec.name: engine.dtype if spec.dtype == "graph" else spec.dtype for spec in specs}
        self._shapes, self.sizes = tensor_shapes(contract, dims), tensor_bytes(contract, engine.dtype, dims)
        with contextlib.ExitStack() as made:
            self.context = engine.context(dims)
            made.callback(self.context.close)
            self.blocks = {}
            for name, size in self.sizes.items():
                self.blocks[name] = self._cuda.allocate(size, f"test: {name}")
                made.callback(self.blocks[name].free)
                self.context.bind(name, self.blocks[name].pointer)
            self._pinned = {
                name: self._cuda.pinned(self._shapes[name], _NUMPY[self._kinds[name]]) for name in self.sizes
            }
            self._made = made.pop_all()

    def fill(self, inputs: Arrays) -> None:
        """Enqueues copies of the inputs, in the graph's dtype."""
        for name, value in inputs.items():
            self._pinned[name][...] = _to_bf16(value) if self._kinds[name] == "bf16" else value
            self._copy(self.blocks[name].pointer, self._pinned[name].ctypes.data, name)

    def read(self) -> Arrays:
        """The outputs, fp32, once they are there."""
        for name in self.outputs:
            self._copy(self._pinned[name].ctypes.data, self.blocks[name].pointer, name)
        self.stream.synchronize()
        return {name: self._as_fp32(name) for name in self.outputs}

    def wipe(self) -> None:
        """Enqueues zeros over the outputs, so that a run that does nothing shows."""
        for name in self.outputs:
            self._cuda.zero(self.blocks[name].pointer, self.sizes[name], self.stream)

    def run(self, inputs: Optional[Arrays] = None) -> Arrays:
        """One run on the engine's stream, on new inputs if there are some."""
        if inputs is not None:
            self.fill(inputs)
        self.wipe()
        self.context.enqueue(self.stream)
        return self.read()

    def move(self, name: str) -> int:
        """Binds another block to a tensor; returns the old address, which stays valid."""
        old = self.blocks[name].pointer
        self.blocks[name] = self._cuda.allocate(self.sizes[name], f"test: {name}")
        self._made.callback(self.blocks[name].free)
        self.context.bind(name, self.blocks[name].pointer)
        return old

    def free(self) -> None:
        """Context and blocks."""
        self._made.close()

    def _copy(self, destination: int, source: int, name: str) -> None:
        self._cuda.copy(destination, source, self.sizes[name], self.stream)

    def _as_fp32(self, name: str) -> np.ndarray[Any, Any]:
        value = self._pinned[name]
        if self._kinds[name] == "bf16":
            return (value.astype(np.uint32) << 16).view(np.float32)
        return value.astype(np.float32)


def worst(got: Arrays, expected: Arrays) -> Comparison:
    """The tensor that lies farthest from its reference; a value that is not finite is farther than any."""
    found = [compare(name, got[name], expected[name]) for name in expected]
    return max(found, key=lambda c: float("inf") if c.relative_l2 is None else c.relative_l2)


def _to_bf16(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rounded to nearest, ties to even: the upper half of fp32."""
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
