"""The loop on a device over TensorRT engines of six releases, against the loop on the host: same noise, same result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_cuda import HostCuda
from kernel_twins import KERNELS
from tensorrt_runtime_stub import RUNTIME_VERSIONS, make_plan, stage_of, stub_library

from motedge.runtime.backends.tensorrt.engine import TensorRtEngine
from motedge.runtime.cuda.errors import EngineError
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.device.loop import DeviceLoop
from motedge.runtime.device.solvers import SolverSource
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.kernels.record import KernelRecord
from motedge.runtime.request import SamplerSettings

GUIDED = SamplerSettings(steps=4, guidance=3.0, guidance_interval=(960.0, 1001.0))
RECORD = KernelRecord("", "", 1, "13.0", (90,), 120)


class Scene:
    """The loop over two engines of a release."""

    def __init__(self, version: str, bundle: Path, model: Any, tables: Any) -> None:
        self.cuda = HostCuda(deferred=True, kernels=KERNELS)
        self.library = stub_library(version, self.cuda)
        with self.cuda.current():
            self.engines = []
            for graph in ("und_prefill", "gen_step"):
                path, contract = bundle / f"{graph}.engine", model.contracts[graph]
                path.write_bytes(make_plan(bundle / f"graphs/{graph}.primitive-fp32.onnx", contract))
                self.engines.append(TensorRtEngine.load(path, contract, "fp32", self.cuda, library=self.library))
            self.workspace = Workspace(self.cuda)
            source = SolverSource(self.cuda, self.workspace, KernelLibrary(self.cuda, b"fatbin", RECORD), None)
            self.loop = DeviceLoop(
                self.cuda, *self.engines, source, tables, model.config, self.workspace, self.cuda.stream("high")
            )

    def run(self, *arguments: Any) -> Any:
        with self.cuda.current():
            return self.loop.run(*arguments)

    def close(self) -> None:
        with self.cuda.current():
            self.loop.close()
            self.workspace.free()
            for engine in self.engines:
                engine.close()
        assert set(self.cuda.ledger) <= {PINNED}
        assert not stage_of(self.library).contexts
        assert not stage_of(self.library).engines
        self.cuda.close()


@pytest.mark.capability(mode="policy", family="any", backend="tensorrt", proof="simulated")
@pytest.mark.parametrize("version", RUNTIME_VERSIONS)
def test_ticks_equal_the_host(
    onnx_bundle: Path, model: Any, tables: Any, gen_inputs: Any, numpy_engine: Any, version: str
) -> None:
    scene = Scene(version, onnx_bundle, model, tables)
    host = DenoiseLoop(numpy_engine("und_prefill"), numpy_engine("gen_step"), tables, model.config)
    launches = []
    for seed, prompt in ((5, [7, 3, 9, 20, 4]), (6, [7, 3, 9, 20, 4]), (7, [7, 3, 9, 20, 4]), (8, [1, 2, 3])):
        inputs = gen_inputs(seed=seed, cond_tokens=np.array(prompt, np.int64))
        result, expected = scene.run(inputs, GUIDED), host.run(inputs, GUIDED)
        # fp32 on both sides, by onnxruntime and by numpy
        np.testing.assert_allclose(result.action, expected.action, rtol=0, atol=1e-5)
        np.testing.assert_allclose(result.vision, expected.vision, rtol=0, atol=1e-5)
        launches.append(result.counters.launch)
    assert launches[1].startswith("one CUDA graph")
    assert launches[2].startswith("one CUDA graph")
    scene.close()


def test_an_engine_that_can_not_be_captured_runs_piece_by_piece(
    onnx_bundle: Path, model: Any, tables: Any, gen_inputs: Any
) -> None:
    scene = Scene("rtx", onnx_bundle, model, tables)
    stage_of(scene.library).capturable = False
    for seed in range(3):
        launch = scene.run(gen_inputs(seed=seed), GUIDED).counters.launch
        assert launch.startswith("piece by piece")
    assert "can't be captured" in launch
    scene.close()


@pytest.mark.parametrize("version", ["8.6", "11.4"])
def test_a_failing_engine_is_named_and_the_next_tick_is_right(
    onnx_bundle: Path, model: Any, tables: Any, gen_inputs: Any, numpy_engine: Any, version: str
) -> None:
    scene = Scene(version, onnx_bundle, model, tables)
    stage_of(scene.library).fail["execute_async_v3"] = "cask convolution failed"
    with pytest.raises(EngineError, match=r"und_prefill[\s\S]*cask convolution failed"):
        scene.run(gen_inputs(), GUIDED)
    stage_of(scene.library).fail.clear()
    host = DenoiseLoop(numpy_engine("und_prefill"), numpy_engine("gen_step"), tables, model.config)
    np.testing.assert_allclose(
        scene.run(gen_inputs(), GUIDED).action, host.run(gen_inputs(), GUIDED).action, rtol=0, atol=1e-5
    )
    scene.close()
