"""One set of shapes of a graph in a session of the CUDA provider, on addresses of the device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from motedge.errors import ContractError
from motedge.runtime.backends.onnxruntime_cuda.failures import run_error
from motedge.runtime.contract_check import tensor_shapes
from motedge.runtime.cuda import Event, Stream
from motedge.runtime.cuda.errors import EngineError
from motedge.runtime.cuda.interface import ALIGNMENT_BYTES

if TYPE_CHECKING:
    from motedge.runtime.backends.onnxruntime_cuda.engine import OnnxRuntimeCudaEngine

# What `bind_input` takes: a numpy type, or, since numpy has no bf16, the number of onnx.TensorProto.BFLOAT16
_BF16 = 16
_ELEMENTS: Mapping[str, Any] = {
    "fp32": np.float32,
    "fp16": np.float16,
    "bf16": _BF16,
    "int64": np.int64,
    "int32": np.int32,
}
# Sets of addresses that a context keeps prepared: a solver has one for each step
_PREPARED_AT_MOST = 64
# Run options, onnxruntime_run_options_config_keys.h: don't wait for the stream; which captured graph; -1: none
_ASYNCHRONOUS = ("disable_synchronize_execution_providers", "1")
_GRAPH_ID, NO_GRAPH = "gpu_graph_id", -1


@dataclass
class _Prepared:
    """One set of addresses. What runs on them once, as a prompt's prefill does, is not worth a graph of the library."""

    binding: Any
    run_options: Any
    runs: int = 0


class OnnxRuntimeCudaContext:
    """See `motedge.runtime.device_engine.DeviceContext`. The library keeps its own workspace, which contexts share."""

    def __init__(self, engine: OnnxRuntimeCudaEngine, dims: Mapping[str, int]) -> None:
        """Raises ContractError for a size outside the profile, or a letter without one."""
        self._engine: Optional[OnnxRuntimeCudaEngine] = engine
        self._graph, self._refusal = engine.contract.graph, engine.capture_refusal
        self._dims = ", ".join(f"{letter}={size}" for letter, size in dims.items()) or "its fixed shapes"
        contract = engine.contract
        self._shapes = tensor_shapes(contract, dims)
        self._elements = {
            spec.name: _ELEMENTS[engine.dtype if spec.dtype == "graph" else spec.dtype]
            for spec in (*contract.inputs, *contract.outputs)
        }
        self._outputs = frozenset(spec.name for spec in contract.outputs)
        self._pointers: dict[str, int] = dict.fromkeys(self._shapes, 0)
        self._prepared: OrderedDict[tuple[int, ...], _Prepared] = OrderedDict()
        self._now: Optional[_Prepared] = None
        self._events: Optional[tuple[Event, Event]] = None

    @property
    def capture_refusal(self) -> Optional[str]:
        """See DeviceContext. A context must have run once before it is captured: the first run allocates."""
        return self._refusal

    @property
    def activation_bytes(self) -> int:
        """0: the library keeps its own."""
        return 0

    def use_activation_memory(self, pointer: int, nbytes: int) -> None:
        """Not used: the library can't be given a workspace from here."""

    def bind(self, name: str, pointer: int) -> None:
        """See DeviceContext."""
        if name not in self._pointers:
            raise ContractError(f"graph {self._graph!r} has no tensor {name!r}", expected=", ".join(self._pointers))
        if pointer <= 0 or pointer % ALIGNMENT_BYTES:
            raise ContractError(
                f"graph {self._graph!r} can't take this address for {name!r}",
                expected=f"a multiple of {ALIGNMENT_BYTES}",
                got=f"{pointer:#x}",
            )
        if self._pointers[name] != pointer:
            self._pointers[name], self._now = pointer, None

    def enqueue(self, stream: Stream) -> None:
        """See DeviceContext. On another stream than the session's, two events put the run between that stream's work.

        Raises:
            ContractError: a tensor was never bound, or the context was closed.
            CaptureError: the library did something that can't be captured.
            OutOfDeviceMemoryError, StickyCudaError, EngineError: the run failed.
        """
        engine = self._require_open()
        prepared = self._now or self._prepare(engine)
        prepared.runs += 1
        if prepared.runs == 2 and engine.cuda_graph == "own":
            prepared.run_options = _run_options(engine, engine.take_graph_id())
        own = engine.stream
        if stream.handle == own.handle:
            self._submit(engine, prepared)
            return
        entered, left = self._events = self._events or (engine.cuda.event(), engine.cuda.event())
        entered.record(stream)
        own.wait(entered)
        self._submit(engine, prepared)
        left.record(own)
        stream.wait(left)

    def close(self) -> None:
        """Frees the bindings; captured graphs stay with the session, which can't free them one by one."""
        self._prepared.clear()
        self._now = self._events = self._engine = None

    def _submit(self, engine: OnnxRuntimeCudaEngine, prepared: _Prepared) -> None:
        session, submit = engine.session, engine.provider.submit
        binding, options = prepared.binding, prepared.run_options

        def run() -> None:
            try:
                session.run_with_iobinding(binding, options)
            except engine.errors as error:
                raise run_error(error, self._graph, self._dims) from error

        if submit is None:
            run()
        else:
            submit(engine.stream, run)

    def _prepare(self, engine: OnnxRuntimeCudaEngine) -> _Prepared:
        """Bindings of the addresses that are set: a captured graph is theirs alone, so each set has its own."""
        missing = [name for name, pointer in self._pointers.items() if not pointer]
        if missing:
            raise ContractError(f"graph {self._graph!r} was run without all tensors bound", got=f"no {missing}")
        key = tuple(self._pointers.values())
        if key not in self._prepared:
            if len(self._prepared) >= _PREPARED_AT_MOST:
                self._prepared.popitem(last=False)
            self._prepared[key] = _Prepared(self._bind_all(engine), _run_options(engine, NO_GRAPH))
        self._prepared.move_to_end(key)
        self._now = self._prepared[key]
        return self._now

    def _bind_all(self, engine: OnnxRuntimeCudaEngine) -> Any:
        binding = engine.session.io_binding()
        place = (engine.provider.device, engine.ordinal)
        for name, pointer in self._pointers.items():
            bind = binding.bind_output if name in self._outputs else binding.bind_input
            try:
                bind(name, *place, self._elements[name], self._shapes[name], pointer)
            except engine.errors as error:
                raise EngineError(
                    f"onnxruntime can't bind {name!r} of graph {self._graph!r}",
                    got=str(error),
                    # Old releases (1.19) know numpy's types alone
                    fix="upgrade onnxruntime, or take an fp16 variant" if self._elements[name] == _BF16 else None,
                ) from error
        return binding

    def _require_open(self) -> OnnxRuntimeCudaEngine:
        if self._engine is None or self._engine.session is None:
            raise ContractError(f"the context of graph {self._graph!r} has been closed")
        return self._engine


def _run_options(engine: OnnxRuntimeCudaEngine, graph_id: int) -> Any:
    options = engine.module.RunOptions()
    options.add_run_config_entry(*_ASYNCHRONOUS)
    options.add_run_config_entry(_GRAPH_ID, str(graph_id))
    # Errors come as exceptions
    options.log_severity_level = 4
    return options
