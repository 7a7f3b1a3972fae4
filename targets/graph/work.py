"""Kernels -> the work that the roofline takes: FLOPs, bytes of weights and of activations, type of the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from motedge.targets.graph.flops import flops
from motedge.targets.graph.kernels import Kernel
from motedge.targets.graph.model import Node
from motedge.targets.graph.operators import ATTENTION, CONV, DEQUANTIZE
from motedge.targets.graph.values import Values
from motedge.targets.roofline.work import OperatorWork, Work

# Formats in which tensor cores multiply when both sides are in it
_QUANTIZED = ("fp8", "int8", "nvfp4")


def graph_work(values: Values, kernels: Sequence[Kernel]) -> Work:
    """The work of one run; weights that several kernels read count for each."""
    return Work(tuple(_kernel_work(values, kernel) for kernel in kernels))


def _kernel_work(values: Values, kernel: Kernel) -> OperatorWork:
    graph = values.graph
    moved = sum(size for _, size in kernel.reads) + sum(graph.tensors[name].bytes for name in kernel.writes)
    matrix = kernel.heavy
    return OperatorWork(
        kind=_kind(matrix),
        flops=sum(flops(node, graph) for node in (matrix or kernel.nodes)),
        weight_bytes=float(sum(graph.tensors[name].bytes for name in kernel.weights)),
        activation_bytes=float(moved),
        type=math_type(values, matrix[0]) if matrix else graph.dtype,
    )


def _kind(matrix: Sequence[Node]) -> str:
    if not matrix:
        return "elementwise"
    if len(matrix) > 1 or matrix[0].op == ATTENTION:
        return "attention"
    return "conv" if matrix[0].op == CONV else "gemm"


def math_type(values: Values, node: Node) -> str:
    """Type in which matrix work multiplies: a quantized one if both sides are dequantized from it, else its inputs'."""
    left, right = (_quantized(values, name) for name in node.inputs[:2])
    if left is not None and left == right:
        return left
    return values.graph.tensors[node.inputs[0]].type


def _quantized(values: Values, name: str) -> Optional[str]:
    """The format that a side is dequantized from; None where it is not, or by way of arithmetic."""
    node = values.producer.get(name)
    while node is not None and node.op in ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Identity"):
        node = values.producer.get(node.inputs[0])
    if node is None or node.op != DEQUANTIZE:
        return None
    kind = values.graph.tensors[node.inputs[0]].type
    return kind if kind in _QUANTIZED else None
