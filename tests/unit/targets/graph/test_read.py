"""ONNX files read for planning: sizes become numbers, weights stay unread, damage is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from planned_graphs import FP4, FP8, FP16, node, read, write

from motedge.errors import BundleError, MissingPackageError

PROJECTION = [node("MatMul", "x w", "y", "layers.0.up/MatMul")]


def test_dynamic_dims_become_numbers_and_weights_are_not_looked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "g.onnx", PROJECTION, {"x": ["N", 8]}, ["y"], {"w": (FP16, [8, 32])})
    graph = read(path, {"x": (5, 8)})
    assert graph.tensors["y"].shape == (5, 32) and graph.tensors["y"].bytes == 5 * 32 * 2
    assert graph.weight_bytes == 8 * 32 * 2
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))


def test_bounds_that_the_graph_computes_are_followed(tmp_path: Path) -> None:
    """As gen_step splits its tokens: the first 3 T rows of N are pictures, which onnx's own inference leaves open."""
    nodes = [
        node("Shape", "frames", "count"),
        node("Squeeze", "count", "scalar"),
        node("Mul", "scalar three", "product"),
        node("Reshape", "product one", "end"),
        node("Slice", "x zero end zero one", "pictures"),
        node("MatMul", "pictures w", "y"),
    ]
    indices = {"three": 3, "one": [1], "zero": [0]}
    inputs = {"x": ["N", 4], "frames": ["T"]}
    path = write(tmp_path / "g.onnx", nodes, inputs, ["y"], {"w": (FP16, [4, 6])}, indices=indices)
    for frames in (2, 5):
        graph = read(path, {"x": (20, 4), "frames": (frames,)})
        assert graph.tensors["pictures"].shape == (3 * frames, 4)
        assert graph.tensors["y"].shape == (3 * frames, 6)


def test_a_length_that_hangs_on_one_that_was_computed_is_followed(tmp_path: Path) -> None:
    """As the layers of Nano's vision encoder: each reshapes by the shape of what the one before it made."""
    nodes, source = [], "x"
    for layer in range(3):
        nodes += [
            node("Shape", source, f"shape{layer}", start=0, end=1),
            node("Squeeze", f"shape{layer}", f"rows{layer}"),
            node("Mul", f"rows{layer} two", f"product{layer}"),
            node("Reshape", f"product{layer} one", f"count{layer}"),
            node("Concat", f"count{layer} rest", f"target{layer}", axis=0),
            node("Reshape", f"{source} target{layer}", f"y{layer}"),
        ]
        source = f"y{layer}"
    indices = {"one": [1], "two": 2, "rest": [-1]}
    path = write(tmp_path / "g.onnx", nodes, {"x": ["N", 64]}, [source], indices=indices)
    assert read(path, {"x": (3, 64)}).tensors["y2"].shape == (24, 8)


def test_a_quantization_that_onnx_does_not_know_keeps_its_shape(tmp_path: Path) -> None:
    nodes = [
        node("TRT_FP4DynamicQuantize", "x step", "q:0 q:1", "s/FP4DynamicQuantize", axis=-1, block_size=16),
        node("DequantizeLinear", "q:1 step", "s/ScaleDequantize:0", "s/ScaleDequantize"),
        node("DequantizeLinear", "q:0 s/ScaleDequantize:0", "dq", axis=-1, block_size=16),
        node("DequantizeLinear", "wscale step", "ws"),
        node("DequantizeLinear", "w ws", "wd", axis=0, block_size=16),
        node("MatMul", "dq wd", "y"),
    ]
    weights = {"step": (FP16, []), "w": (FP4, [64, 32]), "wscale": (FP8, [4, 32])}
    graph = read(write(tmp_path / "g.onnx", nodes, {"x": ["N", 64]}, ["y"], weights), {"x": (10, 64)})
    assert graph.tensors["y"].shape == (10, 32)
    codes, scales = graph.tensors["q:0"], graph.tensors["q:1"]
    assert (codes.type, codes.bytes) == ("nvfp4", 10 * 64 // 2)
    assert (scales.type, scales.bytes) == ("fp8", 10 * 4)
    assert graph.tensors["w"].bytes == 64 * 32 // 2


def test_inputs_must_be_those_of_the_contract(tmp_path: Path) -> None:
    path = write(tmp_path / "g.onnx", PROJECTION, {"x": ["N", 8]}, ["y"], {"w": (FP16, [8, 32])})
    with pytest.raises(BundleError, match="inputs"):
        read(path, {"x": (5, 8), "z": (1,)})
    with pytest.raises(BundleError, match="shape of 'x'"):
        read(path, {"x": (5, 9)})


def test_an_operator_without_a_known_shape_is_named(tmp_path: Path) -> None:
    nodes = [node("TRT_Unheard", "x", "y", "odd")]
    path = write(tmp_path / "g.onnx", nodes, {"x": ["N", 8]}, ["y"])
    with pytest.raises(BundleError, match="can't be worked out") as caught:
        read(path, {"x": (5, 8)})
    assert "TRT_Unheard" in str(caught.value)


def test_shapes_that_contradict_each_other_are_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "g.onnx", PROJECTION, {"x": ["N", 8]}, ["y"], {"w": (FP16, [7, 32])})
    with pytest.raises(BundleError, match="can't be read as a graph"):
        read(path, {"x": (5, 8)})


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"not a model at all"], ids=["empty", "ones", "text"])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"g\.onnx can't be read as a graph"):
        read(tmp_path / "g.onnx", {"x": (1,)})


def test_without_the_onnx_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match="onnx"):
        read(tmp_path / "g.onnx", {})
