"""Engines for a HostCuda whose graphs are Python functions: they check what a real library would only crash on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Optional

import numpy as np

from motedge.bundle import Contract, TensorSpec
from motedge.errors import ContractError
from motedge.runtime.contract_check import tensor_shapes

Function = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]
NUMPY = {"fp32": np.float32, "fp16": np.float16, "int64": np.int64}

_VECTORS = ("state", "corrected", "v_cond", "v_uncond", "noisy", "clean")
SOLVER_CONTRACT = Contract(
    "solver_step",
    (
        *(TensorSpec(name, ("M",), "fp32", "test") for name in _VECTORS),
        TensorSpec("history", (2, "M"), "fp32", "test"),
        TensorSpec("coefficients", (10,), "fp32", "test"),
    ),
    (
        TensorSpec("next_state", ("M",), "fp32", "test"),
        TensorSpec("next_corrected", ("M",), "fp32", "test"),
        TensorSpec("next_history", (2, "M"), "fp32", "test"),
        TensorSpec("magnitude", (2,), "fp32", "test"),
    ),
    {},
    {"M": (64, 256, 1 << 20)},
)


def solver_function(x: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The maths of solver_step."""
    sigma, scale, *factors = x["coefficients"]
    m1, m2 = x["history"]
    velocity = x["v_uncond"] + scale * (x["v_cond"] - x["v_uncond"])
    m0 = x["state"] - sigma * velocity
    corrected = sum(f * term for f, term in zip(factors[:5], (x["state"], x["corrected"], m0, m1, m2)))
    predicted = sum(f * term for f, term in zip(factors[5:], (corrected, m0, m1)))
    magnitude = np.array([np.abs(x["v_cond"]).sum(), np.abs(x["v_uncond"]).sum()])
    return [np.where(x["noisy"] > 0.5, predicted, x["clean"]), corrected, np.stack([m0, m1]), magnitude]


class FunctionEngine:
    """A DeviceEngine. `workspace_bytes`: what a context asks for, by its dims; it is written at every run."""

    def __init__(
        self,
        cuda: Any,
        contract: Contract,
        function: Function,
        *,
        dtype: str = "fp32",
        workspace_bytes: Callable[[Mapping[str, int]], int] = lambda dims: 0,
        capture_refusal: Optional[str] = None,
    ) -> None:
        self.cuda, self.contract, self.function, self.dtype = cuda, contract, function, dtype
        self.workspace_bytes, self.capture_refusal = workspace_bytes, capture_refusal
        self.weight_bytes = 1000
        self.counts: Counter[str] = Counter()
        self.live: set[FunctionContext] = set()

    def context(self, dims: Mapping[str, int]) -> FunctionContext:
        context = FunctionContext(self, tensor_shapes(self.contract, dims), self.workspace_bytes(dims))
        self.counts["contexts"] += 1
        self.live.add(context)
        return context

    def close(self) -> None:
        assert not self.live, "contexts were left open"
        self.counts["closed"] += 1


class FunctionContext:
    """Runs the function on the arrays behind the bound addresses."""

    def __init__(self, engine: FunctionEngine, shapes: Mapping[str, tuple[int, ...]], activation_bytes: int) -> None:
        self.engine, self.shapes, self.activation_bytes = engine, shapes, activation_bytes
        self.capture_refusal = engine.capture_refusal
        self.bound: dict[str, int] = {}
        self.workspace: Optional[tuple[int, int]] = None

    def use_activation_memory(self, pointer: int, nbytes: int) -> None:
        assert nbytes >= self.activation_bytes
        self.workspace = pointer, nbytes

    def bind(self, name: str, pointer: int) -> None:
        if name not in self.shapes:
            raise ContractError(f"no tensor {name!r}", expected=", ".join(self.shapes))
        assert pointer and pointer % 256 == 0, f"{name} at {pointer:#x}"
        self.bound[name] = pointer

    def enqueue(self, stream: Any) -> None:
        missing = set(self.shapes) - set(self.bound)
        if missing or (self.activation_bytes and self.workspace is None):
            raise ContractError("not everything is bound", got=f"no {sorted(missing)}")
        # As a library that notes addresses when work is enqueued
        bound, workspace = dict(self.bound), self.workspace

        def run() -> None:
            self.engine.counts["runs"] += 1
            if workspace is not None:
                self.engine.cuda.view(workspace[0], workspace[1], np.uint8)[:] = 0xFF
            inputs = {spec.name: self._array(spec, bound) for spec in self.engine.contract.inputs}
            results = self.engine.function(inputs)
            for spec, value in zip(self.engine.contract.outputs, results):
                self._array(spec, bound)[...] = value

        self.engine.cuda.enqueue(stream, run, self.engine.contract.graph)

    def close(self) -> None:
        self.engine.live.discard(self)

    def _array(self, spec: TensorSpec, bound: Mapping[str, int]) -> np.ndarray:
        kind = self.engine.dtype if spec.dtype == "graph" else spec.dtype
        array: np.ndarray = self.engine.cuda.view(bound[spec.name], self.shapes[spec.name], NUMPY[kind])
        return array
