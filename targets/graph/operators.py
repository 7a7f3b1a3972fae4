"""What planning knows of operators: which only look at memory differently, which are heavy, which are fused how."""

from __future__ import annotations

from motedge.targets.graph.model import Graph, Node

MATMUL, CONV, ATTENTION = "MatMul", "Conv", "Attention"
# Matrix work: each is a kernel of its own, with what follows elementwise as its epilogue
HEAVY = frozenset((MATMUL, "Gemm", CONV, ATTENTION))
# Other dims on the same bytes
_VIEWS = frozenset(("Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten"))
# A value depends on a whole row of the input: they fuse with elementwise neighbours, but are no epilogue of matrix work
ROWS = frozenset(
    ("RMSNormalization", "LayerNormalization", "Softmax", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceMax")
)
# A value depends on its neighbours, so that its input lies in memory: nothing fuses into them
STENCILS = frozenset(("AveragePool", "MaxPool", "GlobalAveragePool", "Resize"))
DEQUANTIZE = "DequantizeLinear"
SOFTMAX = "Softmax"


def is_view(node: Node, graph: Graph) -> bool:
    """Whether the output is (a contiguous part of) the input's memory."""
    if node.op in _VIEWS:
        return True
    if node.op in ("Split", "Gather"):
        source = graph.tensors[node.inputs[0]]
        axis = int(node.attributes.get("axis", 0)) % max(len(source.shape), 1)
        picks_one = node.op == "Split" or not graph.tensors[node.inputs[1]].shape
        return picks_one and all(size == 1 for size in source.shape[:axis])
    return False


def constant_values(graph: Graph) -> frozenset[str]:
    """Initializers, and what is computed from them alone: weights that are dequantized, cast, transposed."""
    constant = set(graph.initializers)
    for node in graph.nodes:
        if all(name in constant for name in node.inputs if name):
            constant.update(node.outputs)
    return frozenset(constant)
