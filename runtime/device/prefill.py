"""Reading a prompt on the device: token inputs go up, K and V for the generator stay there, by graph und_prefill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.device.planned import PlannedBlock
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceEngine, tensor_bytes
from motedge.runtime.engine import FloatArray

GRAPH = "und_prefill"
INPUTS = ("embeddings", "cos", "sin")


@runtime_checkable
class PromptReader(Protocol):
    """What makes K and V of prompts."""

    @property
    def graph(self) -> str:
        """The graph that does it."""
        ...

    @property
    def dtype(self) -> str:
        """Of K and V: "fp32", "fp16" or "bf16"."""
        ...

    @property
    def aside(self) -> bool:
        """Whether `read` may be called in another thread while a request runs: it has stream and buffers of its own."""
        ...

    def nbytes(self, count: int) -> int:
        """Bytes of K and V of `count` tokens. Raises ContractError for more or fewer than the graph takes."""
        ...

    def read(self, values: Sequence[FloatArray], pointer: int, stream: Stream) -> None:
        """Fills device memory with K and V, [L, 2, K, n, D]; they are there when it returns.

        Args:
            values: embeddings [n, H], cos and sin [n, R], fp32.
            pointer: a multiple of `cuda.interface.ALIGNMENT_BYTES`.
            stream: the caller's, for readers without one.

        Raises:
            CudaError: the GPU or an engine library failed.
        """
        ...

    def free(self) -> None:
        """Gives its buffers back; harmless when repeated."""
        ...


class PrefillReader:
    """A `PromptReader` over an engine of und_prefill, which stays the caller's."""

    graph, aside = GRAPH, False

    def __init__(self, cuda: Cuda, und: DeviceEngine, workspace: Workspace) -> None:
        """Allocates inputs for the longest prompt.

        Raises:
            OutOfDeviceMemoryError: no room for them.
        """
        self._cuda, self._und, self._workspace = cuda, und, workspace
        sizes = tensor_bytes(und.contract, und.dtype, {"S": und.contract.profile["S"][2]})
        self._inputs = PlannedBlock(cuda, {name: sizes[name] for name in INPUTS}, "prompt inputs")
        self._staging = {name: cuda.pinned((sizes[name] // 4,), np.float32) for name in INPUTS}

    @property
    def dtype(self) -> str:
        """See `PromptReader.dtype`."""
        return self._und.dtype

    def nbytes(self, count: int) -> int:
        """See `PromptReader.nbytes`."""
        return tensor_bytes(self._und.contract, self._und.dtype, {"S": count})["und_kv"]

    def read(self, values: Sequence[FloatArray], pointer: int, stream: Stream) -> None:
        """See `PromptReader.read`."""
        context = self._und.context({"S": len(values[0])})
        try:
            self._workspace.lend(context)
            for name, value in zip(INPUTS, values):
                staging, target = self._staging[name][: value.size], self._inputs.pointer(name)
                staging[...] = value.reshape(-1)
                self._cuda.copy(target, staging.ctypes.data, staging.nbytes, stream)
                context.bind(name, target)
            context.bind("und_kv", pointer)
            context.enqueue(stream)
            stream.synchronize()
        finally:
            context.close()

    def free(self) -> None:
        """See `PromptReader.free`."""
        self._inputs.free()
