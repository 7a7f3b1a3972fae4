"""A graph as planning needs it: operators and tensors whose dims are numbers. Free of the onnx package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from motedge.errors import InternalError

# Bits of a value by type, as this project names types
BITS: Mapping[str, int] = {
    "fp32": 32,
    "fp16": 16,
    "bf16": 16,
    "fp8": 8,
    "int8": 8,
    "uint8": 8,
    "int4": 4,
    "nvfp4": 4,
    "int32": 32,
    "int64": 64,
    "bool": 8,
    "fp64": 64,
}
# Shapes and indices: engines keep them on the host, or fold them away
INDEX_TYPES = ("int64", "int32")


@dataclass(frozen=True)
class Tensor:
    """One value of a graph."""

    name: str
    shape: tuple[int, ...]
    # A key of BITS
    type: str
    # Bits a value takes where that differs from its type's: block scales that are stored beside it
    bits: Optional[float] = None

    @property
    def count(self) -> int:
        """Values."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def bytes(self) -> int:
        """Size in memory, two 4-bit values a byte."""
        bits = BITS[self.type] if self.bits is None else self.bits
        return int(-(-self.count * bits // 8))


@dataclass(frozen=True)
class Node:
    """One operator."""

    # Projections are named "<site>/MatMul"
    name: str
    # Operator of ONNX, or TRT_FP4DynamicQuantize
    op: str
    # "" for an optional input that is left out
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Graph:
    """One graph at one size of its dynamic dims, nodes in topological order."""

    name: str
    # The graph's own floating type
    dtype: str
    nodes: tuple[Node, ...]
    # Every tensor: inputs, outputs, initializers and what lies between
    tensors: Mapping[str, Tensor] = field(hash=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    # Names of initializers
    initializers: frozenset[str]

    def __post_init__(self) -> None:
        for node in self.nodes:
            for name in (*filter(None, node.inputs), *filter(None, node.outputs)):
                if name not in self.tensors:
                    raise InternalError(f"graph {self.name!r}: tensor {name!r} of {node.name!r} is unknown")

    @property
    def weight_bytes(self) -> int:
        """Bytes of all initializers, as they are stored."""
        return sum(self.tensors[name].bytes for name in self.initializers)
