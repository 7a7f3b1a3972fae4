"""Small ONNX graphs with their contracts, for tests of builders: two projections, a dynamic number of rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from motedge.bundle import Bundle, Contract, TensorSpec
from motedge.bundle.manifest import SCHEMA
from motedge.files import sha256_file
from motedge.targets.builders.builder import BuildRequest
from motedge.targets.builders.settings import BuildSettings

WIDTH = 8
CONTRACT = Contract(
    graph="gen_step",
    inputs=(TensorSpec("x", ("N", WIDTH), "fp32", "rows"),),
    outputs=(TensorSpec("z", ("N", WIDTH), "fp32", "rows"),),
    sizes={},
    profile={"N": (2, 4, 16)},
)
ASKED = {"layers.0.up_proj": ("fp8", "fp8")}
_HALF, _FP8 = TensorProto.FLOAT16, TensorProto.FLOAT8E4M3FN


def write_graph(path: Path, *, quantized: bool = False, wide_down: bool = False, fused: bool = False) -> Path:
    """x -> up_proj -> down_proj -> z in fp16 between fp32 ends.

    Args:
        path: the ONNX file to write.
        quantized: up_proj in FP8, activations and weight.
        wide_down: down_proj in fp32, as by a misplaced Cast.
        fused: an Attention in front, of one head.
    """
    nodes = [helper.make_node("Cast", ["x"], ["x16"], "in/Cast", to=_HALF)]
    initializers = [_weight("layers.0.up_proj.weight", _FP8 if quantized else _HALF)]
    source = "x16"
    if fused:
        initializers.append(helper.make_tensor("shape4", TensorProto.INT64, [4], [1, 1, -1, WIDTH]))
        initializers.append(helper.make_tensor("shape2", TensorProto.INT64, [2], [-1, WIDTH]))
        nodes += [
            helper.make_node("Reshape", ["x16", "shape4"], ["x4"], "n0/Reshape"),
            helper.make_node("Attention", ["x4", "x4", "x4"], ["a4"], "n1/Attention"),
            helper.make_node("Reshape", ["a4", "shape2"], ["a2"], "n2/Reshape"),
        ]
        source = "a2"
    if quantized:
        initializers.append(helper.make_tensor("scale", _HALF, [], [0.5]))
        site = "layers.0.up_proj"
        nodes += [
            helper.make_node("QuantizeLinear", [source, "scale"], ["q"], f"{site}/QuantizeLinear", output_dtype=_FP8),
            helper.make_node("DequantizeLinear", ["q", "scale"], ["dq"], f"{site}/DequantizeLinear"),
            helper.make_node("DequantizeLinear", [f"{site}.weight", "scale"], ["w"], f"{site}/WeightDequantize"),
            helper.make_node("MatMul", ["dq", "w"], ["y"], f"{site}/MatMul"),
        ]
    else:
        nodes.append(helper.make_node("MatMul", [source, "layers.0.up_proj.weight"], ["y"], "layers.0.up_proj/MatMul"))
    down = TensorProto.FLOAT if wide_down else _HALF
    initializers.append(_weight("layers.0.down_proj.weight", down))
    nodes += [
        helper.make_node("Cast", ["y"], ["y2"], "mid/Cast", to=down),
        helper.make_node("MatMul", ["y2", "layers.0.down_proj.weight"], ["z16"], "layers.0.down_proj/MatMul"),
        helper.make_node("Cast", ["z16"], ["z"], "out/Cast", to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH]) for name in ("x", "z")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    opset = helper.make_opsetid("", 23 if fused or quantized else 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def make_request(folder: Path, asked: Mapping[str, tuple[str, str]] | None = None, **graph: bool) -> BuildRequest:
    """A request to build such a graph into `folder`."""
    return BuildRequest(
        graph="gen_step",
        variant="primitive-fp16",
        model=write_graph(folder / "gen_step.onnx", **graph),
        contract=CONTRACT,
        dtype="fp16",
        asked=dict(asked or {}),
        capabilities=("8.9",),
        settings=BuildSettings(),
        out=folder / "gen_step.engine",
    )


def make_bundle(
    root: Path, variants: tuple[str, ...] = ("primitive-fp16", "fused-fp16"), *, solver: bool = False
) -> Bundle:
    """A bundle with the one graph gen_step, and beside it one of the name and variant of solver_step."""
    files, entries = {}, {}
    (root / "contracts").mkdir(parents=True)
    (root / "contracts/gen_step.json").write_text(json.dumps(CONTRACT.to_dict()))
    for name in variants:
        dialect, dtype, *rest = name.split("-")
        file, recipe = f"graphs/gen_step.{name}.onnx", "-".join(rest) or None
        # Whatever the recipe is called, up_proj is in FP8: nothing reads the values
        write_graph(root / file, quantized=recipe is not None)
        entries[name] = {
            "file": file,
            "weights": [],
            "dialect": dialect,
            "dtype": dtype,
            "opset": 20 if recipe is None else 23,
            "recipe": recipe,
        }
    graphs = {"gen_step": {"contract": "contracts/gen_step.json", "variants": entries}}
    if solver:
        file, contract = "graphs/solver_step.primitive-fp32.onnx", "contracts/solver_step.json"
        write_graph(root / file)
        (root / contract).write_text(json.dumps(dataclasses.replace(CONTRACT, graph="solver_step").to_dict()))
        only = {"file": file, "weights": [], "dialect": "primitive", "dtype": "fp32", "opset": 17}
        graphs["solver_step"] = {"contract": contract, "variants": {"primitive-fp32": only}}
    for path in sorted(root.rglob("*.*")):
        if path.is_file():
            relative = path.relative_to(root).as_posix()
            role = "contract" if path.suffix == ".json" else "graph"
            files[relative] = {"sha256": sha256_file(path), "bytes": path.stat().st_size, "role": role}
    manifest = {
        "schema": SCHEMA,
        "model": {"family": "edge"},
        "shape_set": {},
        "policy": {},
        "graphs": graphs,
        "files": files,
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.open(root)


def _weight(name: str, kind: int) -> onnx.TensorProto:
    values = np.random.RandomState(len(name)).uniform(-1, 1, WIDTH * WIDTH)
    return helper.make_tensor(name, kind, [WIDTH, WIDTH], values.tolist())
