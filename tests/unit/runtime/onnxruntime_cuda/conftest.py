"""The CUDA backend's own code on a CPU session and a simulated GPU, whose addresses are the host's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from host_cuda import HostCuda

from motedge.bundle import Bundle
from motedge.runtime.backends.onnxruntime_cuda import CudaSettings, OnnxRuntimeCudaEngine
from motedge.runtime.backends.onnxruntime_cuda.provider import Provider

DTYPES = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16, "int64": np.int64}


@pytest.fixture
def cuda() -> Iterator[HostCuda]:
    cuda = HostCuda()
    with cuda.current():
        yield cuda
    cuda.close()


@pytest.fixture
def deferred() -> Iterator[HostCuda]:
    """A GPU whose work runs when somebody waits for it."""
    cuda = HostCuda(deferred=True)
    with cuda.current():
        yield cuda
    cuda.close()


@pytest.fixture
def cpu_engine() -> Callable[..., OnnxRuntimeCudaEngine]:
    """`cpu_engine(cuda, bundle_root, "gen_step", cuda_graph="outer")`: an engine with the CPU's provider."""

    def make(cuda: HostCuda, root: Any, graph: str, dtype: str = "fp32", stream: Any = None, **settings: Any) -> Any:
        bundle = Bundle.open(root)
        model = bundle.path(bundle.variant(graph, "primitive-fp32").file)
        provider = Provider("CPUExecutionProvider", "cpu", cuda.enqueue)
        options = CudaSettings(**settings)
        return OnnxRuntimeCudaEngine(
            model, bundle.contract(graph), dtype, cuda, options, stream=stream, threads=1, provider=provider
        )

    return make


class Bound:
    """A context with a block for each tensor."""

    def __init__(self, cuda: HostCuda, engine: Any, dims: dict[str, int], seed: int = 0) -> None:
        self.cuda, self.context, self.random = cuda, engine.context(dims), np.random.RandomState(seed)
        sizes = {**engine.contract.sizes, **dims}
        self.blocks, self.arrays = {}, {}
        for spec in (*engine.contract.inputs, *engine.contract.outputs):
            dtype = DTYPES[engine.dtype if spec.dtype == "graph" else spec.dtype]
            self.add(spec.name, spec.shape(sizes), dtype)
        for spec in engine.contract.inputs:
            self.arrays[spec.name][...] = self.random.standard_normal(spec.shape(sizes))

    def add(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        """A new block for the tensor, bound; the old one stays."""
        block = self.cuda.allocate(max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1), name)
        self.blocks.setdefault(name, []).append(block)
        self.arrays[name] = self.cuda.view(block.pointer, shape, dtype)
        self.context.bind(name, block.pointer)

    def inputs(self) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self.arrays.items()}

    def free(self) -> None:
        self.context.close()
        for blocks in self.blocks.values():
            for block in blocks:
                block.free()


@pytest.fixture
def bound() -> Callable[..., Bound]:
    return Bound
