"""The small numpy model of tests/unit/runtime as engines on a simulated GPU, and the loop on it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from device_engines import SOLVER_CONTRACT, FunctionEngine, solver_function
from host_cuda import HostCuda
from kernel_twins import KERNELS

from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.device.loop import DeviceLoop
from motedge.runtime.device.solvers import SolverSource
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.kernels.record import KernelRecord

# Of kernels that are there; what it says is looked at when a library is found, not here
RECORD = KernelRecord("", "", 1, "13.0", (90,), 120)


@pytest.fixture
def device_loop(model: Any, tables: Any) -> Any:
    """`device_loop(...)`: a namespace of cuda, engines, loop; keyword arguments go to the engines or the loop."""
    opened: list[SimpleNamespace] = []

    def make(
        functions: Any = None,
        engine: Any = None,
        cuda: Any = None,
        solver: str = "graph",
        gen_contract: Any = None,
        **loop_options: Any,
    ) -> SimpleNamespace:
        cuda = cuda or HostCuda(deferred=True, kernels=KERNELS)
        kernels = KernelLibrary(cuda, b"fatbin", RECORD) if solver == "kernel" else None
        functions = {**model.functions, **(functions or {})}
        scene = SimpleNamespace(cuda=cuda)
        with cuda.current():
            gen_contract = gen_contract or model.contracts["gen_step"]
            scene.und, scene.gen = (
                FunctionEngine(cuda, contract, functions[contract.graph], **(engine or {}))
                for contract in (model.contracts["und_prefill"], gen_contract)
            )
            scene.solver = FunctionEngine(cuda, SOLVER_CONTRACT, functions.get("solver_step", solver_function))
            scene.workspace = Workspace(cuda)
            source = SolverSource(cuda, scene.workspace, kernels, scene.solver)
            scene.loop = DeviceLoop(
                cuda,
                scene.und,
                scene.gen,
                source,
                tables,
                model.config,
                scene.workspace,
                cuda.stream("high"),
                **loop_options,
            )

        def run(*args: Any) -> Any:
            with cuda.current():
                return scene.loop.run(*args)

        def close() -> None:
            with cuda.current():
                scene.loop.close()
                scene.workspace.free()
                for each in (scene.und, scene.gen, scene.solver):
                    each.close()

        scene.run, scene.close = run, close
        opened.append(scene)
        return scene

    yield make
    for scene in opened:
        if not scene.cuda.closed:
            scene.close()
            assert set(scene.cuda.ledger) <= {PINNED}
            scene.cuda.close()


@pytest.fixture
def host_loop(model: Any, tables: Any, numpy_engine: Callable[..., Any]) -> Any:
    """The reference: the loop on the host, over the same functions."""

    def make(functions: Any = None, gen_contract: Any = None) -> DenoiseLoop:
        functions = {**model.functions, **(functions or {})}
        gen = numpy_engine("gen_step", functions[gen_contract.graph if gen_contract else "gen_step"])
        gen.contract = gen_contract or gen.contract
        return DenoiseLoop(
            numpy_engine("und_prefill", functions["und_prefill"]),
            gen,
            tables,
            model.config,
        )

    return make
