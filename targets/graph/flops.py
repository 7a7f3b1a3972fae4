"""Floating-point operations of an operator, a multiplication and its addition counted as two."""

from __future__ import annotations

from motedge.errors import InternalError
from motedge.targets.graph.model import Graph, Node
from motedge.targets.graph.operators import ATTENTION, CONV, MATMUL, ROWS


def flops(node: Node, graph: Graph) -> float:
    """FLOPs of one operator at the graph's sizes; one a value for everything that is no matrix work."""
    shapes = [graph.tensors[name].shape for name in node.inputs if name]
    out = graph.tensors[node.outputs[0]]
    if node.op == MATMUL:
        return 2.0 * out.count * shapes[0][-1]
    if node.op == "Gemm":
        return 2.0 * out.count * shapes[0][0 if node.attributes.get("transA") else -1]
    if node.op == CONV:
        inner = 1
        for size in shapes[1][1:]:
            inner *= size
        return 2.0 * out.count * inner
    if node.op == ATTENTION:
        return _attention(node, graph)
    return float(graph.tensors[node.inputs[0]].count if node.op in ROWS else out.count)


def _attention(node: Node, graph: Graph) -> float:
    """Q [B, Hq, Nq, D] against K [B, Hkv, Nk, D] and V [B, Hkv, Nk, E]; a causal one needs half of the scores."""
    query, key, value = (graph.tensors[name].shape for name in node.inputs[:3])
    if not len(query) == len(key) == len(value) == 4:
        raise InternalError(f"graph {graph.name!r}: attention {node.name!r} is not 4-dimensional")
    batch, heads, rows, width = query
    scores = 2.0 * batch * heads * rows * key[2] * (width + value[3])
    return scores / 2 if node.attributes.get("is_causal") and rows == key[2] else scores
