"""Names of nodes: after the weight that they apply, and each once."""

from __future__ import annotations

import pytest

ir = pytest.importorskip("onnx_ir")


def test_a_weight_that_is_applied_twice_names_one_node() -> None:
    from motedge.export.assembly import _name_nodes

    x, weight = ir.Value(name="x"), ir.Value(name="norm_moe_gen.weight")
    nodes = [ir.node(op, [x, weight]) for op in ("RMSNormalization", "RMSNormalization", "MatMul", "Add")]
    graph = ir.Graph([x], [node.outputs[0] for node in nodes], nodes=nodes, initializers=[weight])
    _name_nodes(graph)
    assert [node.name for node in nodes] == [
        "norm_moe_gen/RMSNormalization",
        "n00001/RMSNormalization",
        "norm_moe_gen/MatMul",
        "n00003/Add",
    ]
