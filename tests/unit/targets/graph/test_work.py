"""FLOPs of every kind of operator by hand, and the type in which matrix work multiplies."""

from __future__ import annotations

from pathlib import Path

import pytest
from planned_graphs import FP8, FP16, INT4, INT8, node, read, write

from motedge.targets.graph.flops import flops
from motedge.targets.graph.kernels import fused
from motedge.targets.graph.values import Values
from motedge.targets.graph.work import graph_work


def only(tmp_path: Path, nodes: list, inputs: dict, shapes: dict, weights: dict, **options: object) -> float:
    graph = read(write(tmp_path / "g.onnx", nodes, inputs, ["y"], weights, **options), shapes)
    return flops(graph.nodes[-1], graph)


def test_a_projection(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "y")]
    assert only(tmp_path, nodes, {"x": ["N", 8]}, {"x": (5, 8)}, {"w": (FP16, [8, 32])}) == 2 * 5 * 8 * 32


def test_a_transposed_gemm(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w", "y", transA=1)]
    assert only(tmp_path, nodes, {"x": [8, "N"]}, {"x": (8, 5)}, {"w": (FP16, [8, 32])}) == 2 * 5 * 8 * 32


def test_a_grouped_convolution(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "y", pads=[1, 1, 1, 1], group=2)]
    found = only(tmp_path, nodes, {"x": [1, 8, "h", 6]}, {"x": (1, 8, 4, 6)}, {"w": (FP16, [16, 4, 3, 3])})
    assert found == 2 * (16 * 4 * 6) * 4 * 9


@pytest.mark.parametrize(("causal", "share"), [(0, 1.0), (1, 0.5)])
def test_attention_with_fewer_key_heads(tmp_path: Path, causal: int, share: float) -> None:
    nodes = [node("Attention", "q k v", "y", is_causal=causal)]
    inputs = {"q": [1, 8, "N", 16], "k": [1, 2, "N", 16], "v": [1, 2, "N", 16]}
    shapes = {"q": (1, 8, 10, 16), "k": (1, 2, 10, 16), "v": (1, 2, 10, 16)}
    assert only(tmp_path, nodes, inputs, shapes, {}) == share * 2 * 8 * 10 * 10 * (16 + 16)


def test_elementwise_and_rows_count_values(tmp_path: Path) -> None:
    assert only(tmp_path, [node("Relu", "x", "y")], {"x": ["N", 8]}, {"x": (5, 8)}, {}) == 40
    nodes = [node("ReduceSum", "x axis", "y", keepdims=1)]
    assert only(tmp_path, nodes, {"x": ["N", 8]}, {"x": (5, 8)}, {}, indices={"axis": [1]}) == 40


def quantized(tmp_path: Path, kind: int, *, activations: bool, block: int = 0) -> Values:
    attributes = {"axis": 0, "block_size": block} if block else {}
    nodes = [node("DequantizeLinear", "w scale", "wd", **attributes), node("MatMul", "a wd", "y")]
    if activations:
        nodes = [
            node("QuantizeLinear", "x step", "q", output_dtype=kind),
            node("DequantizeLinear", "q step", "a"),
            *nodes,
        ]
    else:
        nodes = [node("Relu", "x", "a"), *nodes]
    weights = {"w": (kind, [64, 32]), "scale": (FP16, [64 // block, 32] if block else []), "step": (FP16, [])}
    return Values(read(write(tmp_path / "g.onnx", nodes, {"x": ["N", 64]}, ["y"], weights), {"x": (10, 64)}))


@pytest.mark.parametrize(("kind", "name"), [(FP8, "fp8"), (INT8, "int8")])
def test_both_sides_quantized_multiply_in_that_type(tmp_path: Path, kind: int, name: str) -> None:
    values = quantized(tmp_path, kind, activations=True)
    quantize, product = graph_work(values, fused(values)).operators
    assert (quantize.kind, product.kind, product.type) == ("elementwise", "gemm", name)
    # Codes are read, a byte a value; the dequantized activation is never in memory
    assert product.activation_bytes == 10 * 64 + 10 * 32 * 2
    assert product.weight_bytes == 64 * 32 + 2 + 2


def test_quantized_weights_alone_multiply_in_the_graphs_type(tmp_path: Path) -> None:
    values = quantized(tmp_path, INT4, activations=False, block=16)
    product = graph_work(values, fused(values)).operators[-1]
    assert (product.kind, product.type) == ("gemm", "fp16")
    assert product.weight_bytes == 64 * 32 // 2 + 4 * 32 * 2
