"""One set of shapes of a TensorRT engine: made once, with its workspace from outside, never changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from motedge.errors import ContractError
from motedge.runtime.backends.tensorrt.calls import RAISED
from motedge.runtime.backends.tensorrt.runtime_api import CONFIG, METHOD
from motedge.runtime.contract_check import tensor_shapes
from motedge.runtime.cuda.interface import ALIGNMENT_BYTES, Stream

if TYPE_CHECKING:
    from motedge.runtime.backends.tensorrt.engine import TensorRtEngine


class TensorRtContext:
    """See `motedge.runtime.device_engine.DeviceContext`; made by `TensorRtEngine.context`."""

    def __init__(self, engine: TensorRtEngine, dims: Mapping[str, int]) -> None:
        self._engine, self._calls, self._cuda = engine, engine.calls, engine.cuda
        self._shapes = tensor_shapes(engine.contract, dims)
        self._profile = engine.tensors.profile_for(engine.contract, self._shapes)
        self._bound: dict[str, int] = {}
        # IExecutionContext, and the IRuntimeConfig that it was made with. Held by no local variable: see LibraryCalls
        self._raw: Any = None
        self._config: Any = None
        self._workspace, self._ready = 0, False
        try:
            self._raw = self._create()
            self._set_shapes()
            self._activation_bytes = self._measure()
        except BaseException:
            self.close()
            raise

    @property
    def capture_refusal(self) -> Optional[str]:
        """See `DeviceContext.capture_refusal`. Ask after everything has been bound."""
        if not self._engine.library.row.runtime.capture_query:
            return None
        self._require_open()
        with self._cuda.current():
            handle = self._engine.own_stream().handle
            if self._calls.value("tell whether it can be captured", self._raw.is_stream_capturable, handle):
                return None
        return f"{self._calls.library} says that {self._calls.file} can't be captured: it allocates while it runs"

    @property
    def activation_bytes(self) -> int:
        """See `DeviceContext.activation_bytes`: for these shapes; where a version can't tell, for the largest."""
        return self._activation_bytes

    def use_activation_memory(self, pointer: int, nbytes: int) -> None:
        """See `DeviceContext.use_activation_memory`.

        Raises:
            ContractError: too small, or not aligned.
            EngineError: the library refused.
        """
        self._require_open()
        if nbytes < self._activation_bytes or pointer % ALIGNMENT_BYTES or pointer == 0:
            raise ContractError(
                f"graph {self._calls.graph!r} can't take this workspace",
                expected=f"{self._activation_bytes} bytes at a multiple of {ALIGNMENT_BYTES}",
                got=f"{nbytes} bytes at {pointer:#x}",
            )
        if self._engine.library.row.runtime.sized_memory:
            self._calls.value("take its workspace", self._raw.set_device_memory, pointer, nbytes)
        else:
            self._calls.value("take its workspace", setattr, self._raw, "device_memory", pointer)
        if self._calls.logger.errors:
            # Neither call returns anything: a refusal is in the log alone
            raise self._calls.failure("take its workspace")
        self._workspace, self._ready = pointer, False

    def bind(self, name: str, pointer: int) -> None:
        """See `DeviceContext.bind`."""
        self._require_open()
        if self._bound.get(name) == pointer:
            return
        if name not in self._shapes:
            raise ContractError(
                f"graph {self._calls.graph!r} has no tensor {name!r}", expected=", ".join(sorted(self._shapes))
            )
        if pointer % ALIGNMENT_BYTES or pointer <= 0:
            raise ContractError(
                f"graph {self._calls.graph!r} can't take {name!r} from this address",
                expected=f"a multiple of {ALIGNMENT_BYTES}",
                got=f"{pointer:#x}",
            )
        self._calls.require("take an address", self._raw.set_tensor_address, name, pointer, tensor=name)
        self._bound[name], self._ready = pointer, False

    def enqueue(self, stream: Stream) -> None:
        """See `DeviceContext.enqueue`."""
        if not self._ready:
            self._require_ready()
        self._calls.logger.errors.clear()
        try:
            done = self._raw.execute_async_v3(stream.handle)
        except RAISED as error:
            raise self._calls.failure("run", raised=error) from error
        if not done:
            raise self._calls.failure("run")

    def close(self) -> None:
        """See `DeviceContext.close`."""
        self._raw = self._config = None
        self._ready = False

    def _require_open(self) -> None:
        if self._raw is None:
            raise ContractError(f"this context of graph {self._calls.graph!r} has been closed")

    def _create(self) -> Any:
        action, row, api = "make a context", self._engine.library.row.runtime, self._engine.library.api
        if row.context == METHOD:
            return self._calls.require(action, self._engine.raw.create_execution_context_without_device_memory)
        strategy = api.ExecutionContextAllocationStrategy.USER_MANAGED
        if row.context != CONFIG:
            return self._calls.require(action, self._engine.raw.create_execution_context, strategy)
        self._config = self._calls.require(action, self._engine.raw.create_runtime_config)
        self._config.set_execution_context_allocation_strategy(strategy)
        # Runs are captured by the loop, across engines. Kernels are compiled in the first run, not beside later ones
        self._config.cuda_graph_strategy = api.CudaGraphStrategy.DISABLED
        specialization = api.DynamicShapesKernelSpecializationStrategy.EAGER
        self._config.dynamic_shapes_kernel_specialization_strategy = specialization
        if self._engine.runtime_cache is not None:
            self._engine.runtime_cache.give(self._config)
        return self._calls.require(action, self._engine.raw.create_execution_context, self._config)

    def _set_shapes(self) -> None:
        if self._profile:
            stream = self._engine.own_stream()
            self._calls.require(
                f"switch to profile {self._profile}",
                self._raw.set_optimization_profile_async,
                self._profile,
                stream.handle,
            )
            stream.synchronize()
        for name in self._engine.tensors.dynamic:
            self._calls.require("take a shape", self._raw.set_input_shape, name, self._shapes[name], tensor=name)
        unknown = list(self._calls.value("tell its shapes", self._raw.infer_shapes))
        if unknown:
            raise self._calls.failure("tell its shapes", tensor=", ".join(unknown))
        for spec in self._engine.contract.outputs:
            got, expected = tuple(self._raw.get_tensor_shape(spec.name)), self._shapes[spec.name]
            if got != expected:
                raise ContractError(
                    f"the engine of graph {self._calls.graph!r} gives another shape of {spec.name!r}",
                    expected=list(expected),
                    got=list(got),
                    fix="build it again from this bundle",
                )

    def _measure(self) -> int:
        row = self._engine.library.row
        action = "tell the size of its workspace"
        if row.runtime.memory_for_shapes:
            size = int(self._calls.value(action, self._raw.update_device_memory_size_for_shapes))
            if self._calls.logger.errors:
                # It returns 0 then, as for a graph that needs none
                raise self._calls.failure(action)
            return size
        if row.runtime.profile_memory is not None:
            ask = row.runtime.profile_memory
            return int(self._calls.value(action, getattr(self._engine.raw, ask), self._profile))
        return int(getattr(self._engine.raw, row.device_memory))

    def _require_ready(self) -> None:
        self._require_open()
        missing = [name for name in self._shapes if name not in self._bound]
        if missing:
            raise ContractError(f"graph {self._calls.graph!r} was run without all tensors", got=f"no {missing}")
        if self._activation_bytes and not self._workspace:
            raise ContractError(
                f"graph {self._calls.graph!r} was run without a workspace",
                expected=f"{self._activation_bytes} bytes",
                fix="use_activation_memory before enqueue",
            )
        self._ready = True
