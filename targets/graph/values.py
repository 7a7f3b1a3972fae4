"""Whose memory a value is: views and dequantized activations have none of their own, weights come from initializers."""

from __future__ import annotations

import functools

from motedge.targets.graph.model import INDEX_TYPES, Graph, Node
from motedge.targets.graph.operators import DEQUANTIZE, constant_values, is_view


class Values:
    """Answers about the values of one graph, each worked out once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constant = constant_values(graph)
        self.producer: dict[str, Node] = {name: node for node in graph.nodes for name in node.outputs if name}
        self._ends = frozenset((*graph.inputs, *graph.outputs))
        self.roots = functools.lru_cache(maxsize=None)(self._roots)
        self.weights = functools.lru_cache(maxsize=None)(self._weights)

    def is_index(self, name: str) -> bool:
        """Shapes and indices: small, and on the host."""
        return self.graph.tensors[name].type in INDEX_TYPES and name not in self._ends

    def is_activation(self, name: str) -> bool:
        """Neither a weight nor an index."""
        return bool(name) and name not in self.constant and not self.is_index(name)

    def is_free(self, node: Node) -> bool:
        """Whether an operator runs no kernel: a view, an operator on weights or indices, a dequantization, which the
        kernel that takes its result does while it reads."""
        if not any(self.is_activation(name) for name in node.outputs):
            return True
        return node.op == DEQUANTIZE or is_view(node, self.graph)

    def _roots(self, name: str) -> tuple[tuple[str, int], ...]:
        """(value that has memory, bytes of it that are read) for an activation; several for a dequantized one."""
        node = self.producer.get(name)
        if node is None or not self.is_free(node):
            return ((name, self.graph.tensors[name].bytes),)
        if node.op == DEQUANTIZE:
            return tuple(root for source in node.inputs if self.is_activation(source) for root in self.roots(source))
        found: tuple[tuple[str, int], ...] = self.roots(node.inputs[0])
        size = self.graph.tensors[name].bytes
        return found if len(found) > 1 else tuple((root, min(size, whole)) for root, whole in found)

    def _weights(self, name: str) -> frozenset[str]:
        """The initializers behind a constant."""
        if name in self.graph.initializers:
            return frozenset((name,))
        node = self.producer[name]
        return frozenset().union(*(self.weights(source) for source in node.inputs if source))
