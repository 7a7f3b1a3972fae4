"""The CPU builder: which attention is rewritten, and that results stay."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from builder_graphs import make_request
from onnx import TensorProto, helper

from motedge.bundle import Contract, TensorSpec
from motedge.targets.builders.builder import BuildError, BuildRequest
from motedge.targets.builders.ort.attention import fuse_attention
from motedge.targets.builders.ort.builder import OnnxRuntimeBuilder
from motedge.targets.builders.settings import BuildSettings

HEADS, WIDTH = 4, 8


def _attention(
    *, heads: int = HEADS, masked: bool = False, shown: bool = False, swapped: bool = True
) -> onnx.ModelProto:
    """softmax(q k^T) v as the exporter writes it; q, k, v [1, heads, rows, WIDTH] -> [rows, heads * WIDTH]."""
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], "n0/Transpose", perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "kt"], ["s"], "n1/MatMul"),
        helper.make_node("Softmax", ["s2" if masked else "s"], ["p"], "n2/Softmax", axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["m"], "n3/MatMul"),
        helper.make_node("Transpose", ["m"], ["t"], "n4/Transpose", perm=[0, 2, 1, 3] if swapped else [0, 3, 2, 1]),
        helper.make_node("Reshape", ["t", "rows"], ["y"], "n5/Reshape"),
    ]
    if masked:
        nodes.insert(2, helper.make_node("Add", ["s", "mask"], ["s2"], "n6/Add"))
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, heads, r, WIDTH]) for n, r in zip("qkv", "NMM")]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", heads * WIDTH])]
    if shown:
        outputs.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, None))
    constants = [
        helper.make_tensor("rows", TensorProto.INT64, [2], [-1, heads * WIDTH]),
        helper.make_tensor("mask", TensorProto.FLOAT, [1], [0.5]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _run(model: bytes | str) -> np.ndarray:
    random = np.random.RandomState(0)
    shapes = {"q": (1, HEADS, 5, WIDTH), "k": (1, HEADS, 7, WIDTH), "v": (1, HEADS, 7, WIDTH)}
    feed = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], feed)[0])


def test_rewritten_attention_gives_the_same() -> None:
    plain, fused = _attention(), _attention()
    assert fuse_attention(fused) == 1
    kinds = [node.op_type for node in fused.graph.node]
    assert "Softmax" not in kinds
    assert kinds.count("MultiHeadAttention") == 1
    np.testing.assert_allclose(_run(fused.SerializeToString()), _run(plain.SerializeToString()), atol=2e-6)


@pytest.mark.parametrize(
    "other", [{"heads": 1}, {"masked": True}, {"shown": True}, {"swapped": False}], ids=lambda o: next(iter(o))
)
def test_what_is_no_such_attention_stays(other: dict[str, bool]) -> None:
    model, before = _attention(**other), _attention(**other)
    assert fuse_attention(model) == 0
    assert model == before


def _request(tmp_path: Path) -> BuildRequest:
    path = tmp_path / "gen_step.onnx"
    onnx.save(_attention(), path)
    contract = Contract("gen_step", (TensorSpec("q", (1, HEADS, "N", WIDTH), "fp32", "q"),), (), {}, {})
    return BuildRequest(
        "gen_step", "primitive-fp32", path, contract, "fp32", {}, (), BuildSettings(), tmp_path / "out.onnx"
    )


def test_builds(tmp_path: Path) -> None:
    request = _request(tmp_path)
    built = OnnxRuntimeBuilder().build(request, lambda phase, share: None)
    assert built.layers["fused_attention"] == 1
    np.testing.assert_allclose(_run(str(request.out)), _run(str(request.model)), atol=2e-6)
    assert not list(tmp_path.glob("*.partial"))


def test_without_the_onnx_package_it_says_what_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    built = OnnxRuntimeBuilder().build(_request(tmp_path), lambda phase, share: None)
    assert built.layers["fused_attention"] == 0
    assert "onnx package is not installed" in built.notes[0]


def test_half_precision_is_left_as_it_is(tmp_path: Path) -> None:
    built = OnnxRuntimeBuilder().build(make_request(tmp_path), lambda phase, share: None)
    assert built.layers["fused_attention"] == 0


def test_a_graph_that_the_library_refuses(tmp_path: Path) -> None:
    request = _request(tmp_path)
    request.model.write_bytes(b"not onnx")
    with pytest.raises(BuildError, match="can't optimise graph 'gen_step'"):
        OnnxRuntimeBuilder().build(dataclasses.replace(request, dtype="fp16"), lambda phase, share: None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gen_step.onnx"]
