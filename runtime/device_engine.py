"""Engines whose tensors live on the GPU: the counterpart of `motedge.runtime.engine` for the loop on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Optional, Protocol

from motedge.bundle import Contract
from motedge.runtime.contract_check import tensor_shapes
from motedge.runtime.cuda import Stream

# Bytes of an element, by the name of the dtype in a contract or of a graph
ITEM_BYTES: Mapping[str, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int64": 8, "int32": 4}


class DeviceContext(Protocol):
    """One set of shapes of an engine. Not for use by two threads at once."""

    @property
    def capture_refusal(self) -> Optional[str]:
        """Why `enqueue` can't be captured in a CUDA graph; None where it can."""
        ...

    @property
    def activation_bytes(self) -> int:
        """Workspace that it needs for these shapes; 0 where the library keeps its own."""
        ...

    def use_activation_memory(self, pointer: int, nbytes: int) -> None:
        """Gives it a workspace, which contexts that never run at the same time may share; before `enqueue`."""
        ...

    def bind(self, name: str, pointer: int) -> None:
        """The device address of an input or output, a multiple of `cuda.interface.ALIGNMENT_BYTES`, as large as its
        shape. Takes effect with the next `enqueue`.

        Raises:
            ContractError: unknown name, or an address that the library refuses.
        """
        ...

    def enqueue(self, stream: Stream) -> None:
        """Enqueues one run of the graph.

        Raises:
            ContractError: a tensor was never bound, or there is no workspace.
            EngineError: the library failed; names the engine's graph.
        """
        ...

    def close(self) -> None:
        """Frees it; harmless when repeated."""
        ...


class DeviceEngine(Protocol):
    """The weights of one graph in one variant, on the GPU."""

    @property
    def contract(self) -> Contract:
        """Names, dims, dtypes and profile of the graph's tensors."""
        ...

    @property
    def dtype(self) -> str:
        """The graph's own floating type: "fp32", "fp16" or "bf16"."""
        ...

    @property
    def weight_bytes(self) -> int:
        """What loading it took of the GPU's memory, as near as the library tells."""
        ...

    def context(self, dims: Mapping[str, int]) -> DeviceContext:
        """Makes a context for these sizes of the dynamic letters.

        Raises:
            ContractError: a size lies outside the graph's profile, or a letter has none.
        """
        ...

    def close(self) -> None:
        """Frees the weights; contexts must have been closed. Harmless when repeated."""
        ...


def tensor_bytes(contract: Contract, graph_dtype: str, dims: Mapping[str, int]) -> dict[str, int]:
    """The size of every tensor for these sizes of the dynamic letters.

    Raises:
        ContractError: a size outside the profile, or a letter without one.
    """
    shapes = tensor_shapes(contract, dims)
    kinds = {spec.name: spec.dtype for spec in (*contract.inputs, *contract.outputs)}
    return {
        name: math.prod(shape) * ITEM_BYTES[graph_dtype if kinds[name] == "graph" else kinds[name]]
        for name, shape in shapes.items()
    }
