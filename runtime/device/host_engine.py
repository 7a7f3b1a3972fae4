"""An engine of the GPU behind the host's protocol, so that whatever runs on numpy arrays runs on it unchanged.

It copies every input and output, and waits: right for `motedge verify`, samples and tests, not for the fast loop.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from motedge.errors import ContractError
from motedge.runtime.contract_check import check_array, host_dtype, require_input, tensor_shapes
from motedge.runtime.cuda import Cuda, DeviceMemory, Stream
from motedge.runtime.cuda.interface import ALIGNMENT_BYTES
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceContext, DeviceEngine, tensor_bytes
from motedge.runtime.engine import Array

# Pinned memory lives as long as the CUDA context, so that it is taken in sizes that fit again: 1 MiB
_PINNED_GRAIN = 1 << 20


class HostEngine:
    """As `motedge.runtime.engine.Engine`. What a dropped context held is freed with the next one, or by `close`."""

    def __init__(
        self,
        engine: DeviceEngine,
        cuda: Cuda,
        *,
        stream: Optional[Stream] = None,
        workspace: Optional[Workspace] = None,
        owns_cuda: bool = False,
    ) -> None:
        """Takes over `engine`.

        Args:
            engine: closed by `close`.
            cuda: the device that it lies on.
            stream: what everything runs on; None: one of its own.
            workspace: shared with other engines on that stream, and the caller's; None: one of its own.
            owns_cuda: whether `close` closes `cuda` too.
        """
        self._engine, self._cuda, self._owns_cuda = engine, cuda, owns_cuda
        with cuda.current():
            self._stream = stream or cuda.stream()
        self._shared = workspace
        self._workspace: Optional[DeviceMemory] = None
        self._held: list[_Held] = []
        # Filled by whichever thread collects a context, and emptied where calls to CUDA are allowed
        self._dropped: list[_Held] = []
        self._pinned: list[Array] = []
        self._closed = False

    @property
    def contract(self) -> Any:
        """Of the graph."""
        return self._engine.contract

    @property
    def model(self) -> Optional[Path]:
        """The file that it was loaded from, where the engine tells."""
        return getattr(self._engine, "model", None) or getattr(self._engine, "path", None)

    @property
    def dtype(self) -> str:
        """The graph's own floating type."""
        return self._engine.dtype

    def context(self, dims: Mapping[str, int]) -> HostContext:
        """See `motedge.runtime.engine.Engine.context`.

        Raises:
            ContractError: a size outside the profile, or a tensor in bf16, for which the host has no arrays.
            CudaError: no memory.
        """
        if self._closed:
            raise ContractError(f"the engine of graph {self.contract.graph!r} has been closed")
        contract = self.contract
        # Before anything is allocated: bf16 is refused here
        dtypes = {spec.name: host_dtype(spec.dtype, self.dtype) for spec in (*contract.inputs, *contract.outputs)}
        layout = _Layout.of(tensor_bytes(contract, self.dtype, dims), len(contract.inputs))
        with self._cuda.current():
            self._reclaim()
            held = self._hold(dims, layout)
        context = HostContext(self, held, layout, tensor_shapes(contract, dims), dtypes)
        weakref.finalize(context, self._dropped.append, held)
        return context

    def close(self) -> None:
        """Frees everything, whatever a part of it raises; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as last:
            if self._owns_cuda:
                last.callback(self._cuda.close)
            with self._cuda.current(), contextlib.ExitStack() as steps:
                if self._workspace is not None:
                    steps.callback(self._workspace.free)
                steps.callback(self._engine.close)
                for held in self._held:
                    steps.callback(held.free)
                self._held, self._dropped = [], []

    def run(self, context: DeviceContext, held: _Held, layout: _Layout) -> None:
        """Copies the inputs from `held.pinned`, runs, copies the outputs back there, and waits."""
        if self._closed:
            raise ContractError(f"the engine of graph {self.contract.graph!r} has been closed")
        cuda, stream, inputs = self._cuda, self._stream, layout.input_bytes
        device, host = held.block.pointer, held.pinned.ctypes.data
        with cuda.current():
            if self._shared is not None:
                # Others may have moved it since
                self._shared.lend(context)
            if inputs:
                cuda.copy(device, host, inputs, stream)
            context.enqueue(stream)
            cuda.copy(host + inputs, device + inputs, layout.nbytes - inputs, stream)
            stream.synchronize()

    def _hold(self, dims: Mapping[str, int], layout: _Layout) -> _Held:
        """A context with its memory; nothing stays when a part of it fails."""
        with contextlib.ExitStack() as made:
            context = self._engine.context(dims)
            made.callback(context.close)
            block = self._cuda.allocate(layout.nbytes, f"{self.contract.graph}: inputs and outputs")
            made.callback(block.free)
            for name, offset in layout.offsets.items():
                context.bind(name, block.pointer + offset)
            self._share_workspace(context)
            held = _Held(context, block, self._take_pinned(layout.nbytes))
            self._held.append(held)
            made.pop_all()
        return held

    def _share_workspace(self, context: DeviceContext) -> None:
        """One workspace for all contexts, since they run in turn; it grows with the largest."""
        needed = context.activation_bytes
        if not needed or self._shared is not None:
            return
        if self._workspace is None or self._workspace.nbytes < needed:
            larger = self._cuda.allocate(needed, f"{self.contract.graph}: workspace")
            with contextlib.ExitStack() as after:
                if self._workspace is not None:
                    after.callback(self._workspace.free)
                self._workspace = larger
                for held in self._held:
                    held.context.use_activation_memory(larger.pointer, larger.nbytes)
        context.use_activation_memory(self._workspace.pointer, self._workspace.nbytes)

    def _take_pinned(self, nbytes: int) -> Array:
        """The smallest free pinned array that is large enough, or a new one."""
        fitting = sorted((array for array in self._pinned if array.nbytes >= nbytes), key=lambda array: array.nbytes)
        if not fitting:
            return self._cuda.pinned((-(-nbytes // _PINNED_GRAIN) * _PINNED_GRAIN,), np.uint8)
        self._pinned = [array for array in self._pinned if array is not fitting[0]]
        return fitting[0]

    def _reclaim(self) -> None:
        while self._dropped:
            held = self._dropped.pop()
            if held in self._held:
                self._held.remove(held)
                self._pinned.append(held.pinned)
                held.free()


class HostContext:
    """See `motedge.runtime.engine.Context`. Outputs are arrays of their own, which stay valid after `close`."""

    def __init__(
        self,
        engine: HostEngine,
        held: _Held,
        layout: _Layout,
        shapes: Mapping[str, tuple[int, ...]],
        dtypes: Mapping[str, np.dtype[Any]],
    ) -> None:
        self._engine, self._held, self._layout, self._shapes, self._dtypes = engine, held, layout, shapes, dtypes
        self._inputs: dict[str, Array] = {}
        names = [spec.name for spec in engine.contract.outputs]
        self._outputs: dict[str, Array] = {name: np.zeros(shapes[name], dtypes[name]) for name in names}
        self._staged = {name: self._view(name) for name in shapes}

    def set_input(self, name: str, value: Array) -> None:
        """See `motedge.runtime.engine.Context.set_input`."""
        if self._inputs.get(name) is value:
            return
        contract = self._engine.contract
        require_input(contract, name)
        self._inputs[name] = check_array(contract.graph, name, value, self._shapes[name], self._dtypes[name])

    def output(self, name: str) -> Array:
        """See `motedge.runtime.engine.Context.output`."""
        if name not in self._outputs:
            raise ContractError(
                f"graph {self._engine.contract.graph!r} has no output {name!r}", expected=", ".join(self._outputs)
            )
        return self._outputs[name]

    def run(self) -> None:
        """Runs the graph, and waits for it.

        Raises:
            ContractError: an input was never set, or the engine was closed.
            HostError: CUDA or the engine library failed.
        """
        contract = self._engine.contract
        missing = [spec.name for spec in contract.inputs if spec.name not in self._inputs]
        if missing:
            raise ContractError(f"graph {contract.graph!r} was run without all inputs", got=f"no {missing}")
        for name, value in self._inputs.items():
            np.copyto(self._staged[name], value)
        self._engine.run(self._held.context, self._held, self._layout)
        for name, value in self._outputs.items():
            np.copyto(value, self._staged[name])

    def _view(self, name: str) -> Array:
        shape, dtype = self._shapes[name], self._dtypes[name]
        start = self._layout.offsets[name]
        end = start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return self._held.pinned[start:end].view(dtype).reshape(shape)


@dataclass(frozen=True)
class _Layout:
    """Where the tensors lie in a context's block: all inputs, then all outputs, so that each takes one copy."""

    offsets: Mapping[str, int]
    input_bytes: int
    nbytes: int

    @classmethod
    def of(cls, sizes: Mapping[str, int], inputs: int) -> _Layout:
        """`sizes` in bytes, the first `inputs` of them of inputs."""
        offsets, end, input_bytes = {}, 0, 0
        for index, (name, size) in enumerate(sizes.items()):
            offsets[name] = end
            end += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
            input_bytes = end if index < inputs else input_bytes
        return cls(offsets, input_bytes, end)


@dataclass(frozen=True, eq=False)
class _Held:
    """What a context has on the device, and the pinned memory that its tensors pass through."""

    context: DeviceContext
    block: DeviceMemory
    pinned: Array

    def free(self) -> None:
        """Closes the context, then frees its memory."""
        with contextlib.ExitStack() as steps:
            steps.callback(self.block.free)
            steps.callback(self.context.close)
