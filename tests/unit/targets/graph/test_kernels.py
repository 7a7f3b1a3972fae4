"""Which operators share a kernel, which values exist in memory, and how much of it they take at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from planned_graphs import FP16, FP32, node, operators, read, write

from motedge.targets.graph.kernels import fused, one_each
from motedge.targets.graph.liveness import activation_peak
from motedge.targets.graph.model import Graph
from motedge.targets.graph.values import Values

ROWS, WIDE, NARROW = 1024, 512, 128
MLP = [
    node("MatMul", "x up", "u"),
    node("Relu", "u", "r"),
    node("Mul", "r r", "s"),
    node("MatMul", "s down", "d"),
    node("Add", "x d", "y"),
    node("Cast", "y", "wide", to=FP32),
    node("RMSNormalization", "wide gamma", "n", axis=-1),
    node("Cast", "n", "half", to=FP16),
    node("MatMul", "half last", "z"),
    node("Add", "y z", "out"),
]
MLP_WEIGHTS = {
    "up": (FP16, [NARROW, WIDE]),
    "down": (FP16, [WIDE, NARROW]),
    "gamma": (FP32, [NARROW]),
    "last": (FP16, [NARROW, NARROW]),
}


@pytest.fixture
def mlp(tmp_path: Path) -> Values:
    path = write(tmp_path / "g.onnx", MLP, {"x": ["N", NARROW]}, ["out"], MLP_WEIGHTS)
    return Values(read(path, {"x": (ROWS, NARROW)}))


def test_elementwise_operators_follow_matrix_work(mlp: Values) -> None:
    assert operators(fused(mlp)) == ["MatMul+Relu+Mul", "MatMul+Add", "Cast+RMSNormalization+Cast", "MatMul+Add"]
    assert operators(one_each(mlp)) == [entry.op_type for entry in MLP]


def test_a_value_inside_a_kernel_has_no_memory(mlp: Values) -> None:
    kernels = fused(mlp)
    assert [kernel.writes for kernel in kernels] == [("s",), ("y",), ("half",), ("out",)]
    assert [dict(kernel.reads) for kernel in kernels] == [
        {"x": ROWS * NARROW * 2},
        {"s": ROWS * WIDE * 2, "x": ROWS * NARROW * 2},
        {"y": ROWS * NARROW * 2},
        {"half": ROWS * NARROW * 2, "y": ROWS * NARROW * 2},
    ]
    assert [kernel.weights for kernel in kernels] == [("up",), ("down",), ("gamma",), ("last",)]


def test_without_epilogues_matrix_work_writes_its_own_result(mlp: Values) -> None:
    kernels = fused(mlp, epilogues=False)
    assert operators(kernels)[:2] == ["MatMul", "Relu+Mul"]
    assert kernels[0].writes == ("u",)


def test_peaks_by_hand(mlp: Values) -> None:
    wide, narrow = ROWS * WIDE * 2, ROWS * NARROW * 2
    # x and out are the caller's. s, and y beside it while down_proj runs
    assert activation_peak(mlp, fused(mlp), in_place=False).bytes == wide + narrow
    # u and s at once
    whole = activation_peak(mlp, fused(mlp, epilogues=False), in_place=False)
    assert whole.bytes == 2 * wide and whole.alive[:2] == (("u", wide), ("s", wide))
    # Each Relu and Mul over its input
    assert activation_peak(mlp, one_each(mlp), in_place=True).bytes == wide + narrow
    assert activation_peak(mlp, one_each(mlp), in_place=False).bytes == 2 * wide


def test_what_matrix_work_reads_is_not_written_over(tmp_path: Path) -> None:
    """a W has a's size, and needs all of a until its last value is there."""
    nodes = [node("Relu", "x", "a"), node("MatMul", "a w", "b"), node("Relu", "b", "c"), node("MatMul", "c w", "y")]
    path = write(tmp_path / "g.onnx", nodes, {"x": ["N", 64]}, ["y"], {"w": (FP16, [64, 64])})
    values = Values(read(path, {"x": (256, 64)}))
    size = 256 * 64 * 2
    assert activation_peak(values, one_each(values), in_place=True).bytes == 2 * size


def test_views_and_parts_of_an_input_take_nothing(tmp_path: Path) -> None:
    """As und_kv is taken apart: split by layer, K and V gathered; only the sum is memory of the graph's own."""
    nodes = [
        node("Split", "kv", "l0 l1", num_outputs=2, axis=0),
        node("Gather", "l0 zero", "k", axis=1),
        node("Gather", "l1 one", "v", axis=1),
        node("Reshape", "k flat", "k2"),
        node("Reshape", "v flat", "v2"),
        node("Add", "k2 v2", "sum"),
        node("MatMul", "sum w", "y"),
    ]
    indices = {"zero": 0, "one": 1, "flat": [-1, 16]}
    path = write(
        tmp_path / "g.onnx", nodes, {"kv": [2, 2, 4, "U", 16]}, ["y"], {"w": (FP16, [16, 16])}, indices=indices
    )
    values = Values(read(path, {"kv": (2, 2, 4, 32, 16)}))
    part = 4 * 32 * 16 * 2
    kernels = fused(values)
    assert operators(kernels) == ["Add", "MatMul"]
    assert dict(kernels[0].reads) == {"kv": part}
    assert activation_peak(values, kernels, in_place=False).bytes == part


def _attention(heads: int, rows: int, spelled: bool, path: Path) -> Graph:
    if spelled:
        nodes = [
            node("Transpose", "k", "kt", perm=[0, 1, 3, 2]),
            node("MatMul", "q kt", "scores"),
            node("Mul", "scores scale", "scaled"),
            node("Softmax", "scaled", "p", axis=-1),
            node("MatMul", "p v", "o"),
        ]
    else:
        nodes = [node("Attention", "q k v", "o")]
    nodes.append(node("MatMul", "o w", "y"))
    inputs = {"q": [1, heads, "N", 32], "k": [1, heads, "N", 32], "v": [1, heads, "N", 32]}
    weights = {"w": (FP16, [32, 32]), "scale": (FP16, [])} if spelled else {"w": (FP16, [32, 32])}
    write(path, nodes, inputs, ["y"], weights)
    return read(path, dict.fromkeys(("q", "k", "v"), (1, heads, rows, 32)))


def test_attention_that_is_spelled_out_is_one_kernel(tmp_path: Path) -> None:
    graph = _attention(4, 300, True, tmp_path / "g.onnx")
    values = Values(graph)
    kernels = fused(values)
    assert operators(kernels) == ["Transpose", "MatMul+Mul+Softmax+MatMul", "MatMul"]
    scores = 4 * 300 * 300 * 2
    assert activation_peak(values, kernels, in_place=False).bytes < scores
    assert activation_peak(values, one_each(values), in_place=True).bytes >= scores


def test_a_gate_is_multiplied_by_the_later_product(tmp_path: Path) -> None:
    """silu(x G) * (x U): one of the products is written, the other one's kernel takes the rest."""
    nodes = [
        node("MatMul", "x gate", "g"),
        node("Sigmoid", "g", "s"),
        node("Mul", "g s", "silu"),
        node("MatMul", "x up", "u"),
        node("Mul", "silu u", "h"),
        node("MatMul", "h down", "y"),
    ]
    weights = {"gate": (FP16, [64, 256]), "up": (FP16, [64, 256]), "down": (FP16, [256, 64])}
    path = write(tmp_path / "g.onnx", nodes, {"x": ["N", 64]}, ["y"], weights)
    kernels = fused(Values(read(path, {"x": (100, 64)})))
    assert operators(kernels) == ["MatMul", "Sigmoid+Mul+MatMul+Mul", "MatMul"]
    assert [kernel.writes for kernel in kernels] == [("g",), ("h",), ("y",)]
