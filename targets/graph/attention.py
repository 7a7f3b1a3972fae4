"""Attention that is spelled out (MatMul, Softmax, MatMul), found as TensorRT's multi-head attention finds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

from motedge.targets.graph.model import Graph, Node
from motedge.targets.graph.operators import HEAVY, MATMUL, ROWS, SOFTMAX, STENCILS
from motedge.targets.graph.values import Values

# Operators between the two products besides the softmax: a scale, a mask, casts
_MOST_BETWEEN = 6


def spelled_attention(values: Values) -> list[tuple[Node, ...]]:
    """Operators of each attention, in order: from the product of Q and K to the one with V."""
    consumers: dict[str, list[Node]] = {}
    for node in values.graph.nodes:
        for name in node.inputs:
            consumers.setdefault(name, []).append(node)
    found = []
    for node in values.graph.nodes:
        if node.op == SOFTMAX:
            before, after = _back(node, values), _forth(node, values.graph, consumers)
            if before is not None and after is not None:
                found.append((*before, node, *after))
    return found


def _back(softmax: Node, values: Values) -> Optional[Sequence[Node]]:
    chain: list[Node] = []
    name = softmax.inputs[0]
    while len(chain) <= _MOST_BETWEEN:
        node = values.producer.get(name)
        if node is None or node.op in ROWS or node.op in STENCILS:
            return None
        chain.insert(0, node)
        if node.op in HEAVY:
            products = node.op == MATMUL and all(values.is_activation(source) for source in node.inputs)
            return chain if products else None
        sources = [source for source in node.inputs if values.is_activation(source)]
        # A mask comes from elsewhere; the scores are the larger of the two
        name = max(sources, key=lambda source: values.graph.tensors[source].count, default="")
    return None


def _forth(softmax: Node, graph: Graph, consumers: Mapping[str, Sequence[Node]]) -> Optional[Sequence[Node]]:
    chain: list[Node] = []
    name = softmax.outputs[0]
    while len(chain) <= _MOST_BETWEEN:
        takers = consumers.get(name, ())
        if len(takers) != 1 or name in graph.outputs:
            return None
        chain.append(takers[0])
        if takers[0].op in HEAVY:
            return chain if takers[0].op == MATMUL else None
        name = takers[0].outputs[0]
    return None
