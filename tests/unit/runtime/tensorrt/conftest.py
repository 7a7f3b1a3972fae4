"""Engines of the stub library on the simulated GPU, over the small ONNX models of the runtime's tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import pytest
from host_cuda import HostCuda
from tensorrt_runtime_stub import RuntimeStage, make_plan, stage_of, stub_library

from motedge.runtime.backends.tensorrt.context import TensorRtContext
from motedge.runtime.backends.tensorrt.engine import TensorRtEngine
from motedge.runtime.device_engine import tensor_bytes

GEN_DIMS = {"T": 3, "A": 5, "U": 6, "N": 17}


@dataclasses.dataclass
class Bench:
    """Makes engines and runs them."""

    cuda: HostCuda
    folder: Path
    bundle: Path
    model: SimpleNamespace

    def path(self, graph: str, **plan: Any) -> Path:
        """A plan of a graph, as a file."""
        path = self.folder / f"{graph}.engine"
        onnx = self.bundle / f"graphs/{graph}.primitive-fp32.onnx"
        path.write_bytes(make_plan(onnx, self.model.contracts[graph], **plan))
        return path

    def load(self, version: str, graph: str = "gen_step", **settings: Any) -> TensorRtEngine:
        """An engine; its stage is `stage(engine)`."""
        plan = settings.pop("plan", {})
        library = settings.pop("library", None) or stub_library(version, self.cuda)
        path = self.path(graph, **plan)
        return TensorRtEngine.load(path, self.model.contracts[graph], "fp32", self.cuda, library=library, **settings)

    def stage(self, engine: TensorRtEngine) -> RuntimeStage:
        return stage_of(engine.library)

    def inputs(self, graph: str, dims: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
        contract, random = self.model.contracts[graph], np.random.RandomState(seed)
        sizes = {**contract.sizes, **dims}
        return {s.name: random.standard_normal(s.shape(sizes)).astype(np.float32) for s in contract.inputs}

    def bind(
        self,
        engine: TensorRtEngine,
        context: TensorRtContext,
        dims: Mapping[str, int],
        inputs: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Allocates and binds every tensor; returns the arrays behind them."""
        sizes = {**engine.contract.sizes, **dims}
        arrays = {}
        for name, nbytes in tensor_bytes(engine.contract, engine.dtype, dims).items():
            block = self.cuda.allocate(nbytes, "tensors")
            arrays[name] = self.cuda.view(block.pointer, engine.contract.tensor(name).shape(sizes), np.float32)
            if name in inputs:
                arrays[name][...] = inputs[name]
            context.bind(name, block.pointer)
        return arrays

    def expected(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = self.model.functions[graph](inputs)
        return {spec.name: value for spec, value in zip(self.model.contracts[graph].outputs, outputs)}


@pytest.fixture
def cuda() -> Iterator[HostCuda]:
    made = HostCuda(total_bytes=1 << 24)
    with made.current():
        yield made
    made.close()


@pytest.fixture
def bench(cuda: HostCuda, tmp_path: Path, onnx_bundle: Path, model: SimpleNamespace) -> Bench:
    return Bench(cuda, tmp_path, onnx_bundle, model)


def message_of(error: Optional[BaseException]) -> str:
    """The whole text, in one line."""
    return " ".join(str(error).split())
