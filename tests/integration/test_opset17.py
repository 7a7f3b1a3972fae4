"""Primitive graphs in opset 17, for TensorRT 8.6: the values of those in opset 20, in operators that it reads."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from tensorrt_rtx_build import build_engine
from tiny import MINI

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import InternalError, UsageError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.onnx_file import check_model, write_model
from motedge.export.opset17 import lower_to_opset17
from motedge.export.variants import parse_variants
from motedge.quant.plan import make_plan
from motedge.quant.recipe import load_recipe
from motedge.runtime.backends import choose_variant
from motedge.runtime.backends.tensorrt.versions import find_version
from motedge.targets.builders.selection import choose

GRAPHS = ("und_prefill", "gen_step", "vae_encoder")
FAMILIES = ("edge", "nano")
DTYPES = ("fp32", "fp16")
# Operators of the graphs that onnx-tensorrt 8.6-GA lists as supported (docs/operators.md), less Trilu, whose importer
# multiplies bools
READ_BY_8_6 = frozenset(
    {"Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "Cos", "Div", "Expand", "Gather", "Greater", "Less"}
    | {"MatMul", "Mul", "Pad", "Range", "Reciprocal", "ReduceL1", "ReduceMean", "ReduceSum", "Relu", "Reshape"}
    | {"Shape", "Sigmoid", "Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze"}
    | {"Where"}
)
# Relative L2: the same operators, whose kernels in onnxruntime may differ by opset
TOLERANCE = {"fp32": 1e-6, "fp16": 2e-3}


@pytest.fixture(scope="module")
def lowered(
    checkpoints: dict[str, Path], full_variants: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Bundle]:
    """Bundles with the graphs in both opsets: Edge's exported, Nano's made of the files in opset 20."""
    root = tmp_path_factory.mktemp("opset17")
    for family in FAMILIES:
        shutil.copytree(full_variants[family], root / family)
    variants = parse_variants(",".join(f"primitive17-{dtype}" for dtype in DTYPES))
    export_bundle(Checkpoint.open(checkpoints["edge"]), root / "edge", ExportOptions(MINI, variants, "none"))
    return {"edge": Bundle.open(root / "edge"), "nano": _lower_files(Bundle.open(root / "nano"))}


def _lower_files(bundle: Bundle) -> Bundle:
    graphs = dict(bundle.manifest.graphs)
    for graph, dtype in itertools.product(GRAPHS, DTYPES):
        entry = bundle.variant(graph, f"primitive-{dtype}")
        model = ir.load(bundle.path(entry.file))
        lower_to_opset17(model)
        file = f"graphs/{graph}.primitive17-{dtype}.onnx"
        write_model(model, bundle.path(file), {})
        check_model(bundle.path(file))
        variants = {**graphs[graph].variants, f"primitive17-{dtype}": dataclasses.replace(entry, file=file, opset=17)}
        graphs[graph] = dataclasses.replace(graphs[graph], variants=variants)
    return Bundle(bundle.root, dataclasses.replace(bundle.manifest, graphs=graphs))


def models(bundle: Bundle) -> list[onnx.ModelProto]:
    """Every graph of opset 17, the solver's among them."""
    entries = [v for g in bundle.manifest.graphs.values() for v in g.variants.values() if v.opset == 17]
    assert len(entries) == 2 * len(GRAPHS) + len(WEIGHTLESS_GRAPHS)
    return [onnx.load(str(bundle.path(entry.file)), load_external_data=False) for entry in entries]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_values_at_any_size(family: str, graph: str, dtype: str, lowered: dict[str, Bundle]) -> None:
    bundle, random = lowered[family], np.random.RandomState(5)
    contract = bundle.contract(graph)
    old, new = (_session(bundle, graph, f"{dialect}-{dtype}") for dialect in ("primitive17", "primitive"))
    for sizes in _sizes(contract.profile):
        inputs = {}
        for spec in contract.inputs:
            value = random.standard_normal(spec.shape({**contract.sizes, **sizes}))
            value = (value > 0) if spec.name.endswith("_noisy") else value
            inputs[spec.name] = value.astype(np.float16 if (spec.dtype, dtype) == ("graph", "fp16") else np.float32)
        for got, expected in zip(old.run(None, inputs), new.run(None, inputs), strict=True):
            got, expected = got.astype(np.float64), expected.astype(np.float64)
            assert np.isfinite(got).all()
            assert np.linalg.norm(got - expected) <= TOLERANCE[dtype] * np.linalg.norm(expected)


def _session(bundle: Bundle, graph: str, variant: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = str(bundle.path(bundle.variant(graph, variant).file))
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


def _sizes(profile) -> list[dict[str, int]]:
    """Corners and the optimum of a profile, N following from the others."""
    letters = [letter for letter in profile if letter != "N"]
    ends = itertools.product(*(profile[letter][::2] for letter in letters))
    found = [dict(zip(letters, sizes, strict=True)) for sizes in ends]
    found.append({letter: profile[letter][1] for letter in letters})
    for sizes in found:
        if "N" in profile:
            sizes["N"] = sizes["T"] * MINI.tokens_per_frame + sizes["A"]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_in_them_that_the_old_parser_lacks(family: str, lowered: dict[str, Bundle]) -> None:
    for model in models(lowered[family]):
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
        assert model.ir_version == 8
        assert {node.op_type for node in model.graph.node} <= READ_BY_8_6
        # Its importer reads no range of a shape, and squeezes known shapes alone
        assert not [n for n in model.graph.node if n.op_type == "Shape" and n.attribute]
        assert not [n for n in model.graph.node if n.op_type == "Squeeze" and len(n.input) < 2]
        kinds = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
        assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
        assert onnx.TensorProto.DOUBLE not in {t.data_type for t in model.graph.initializer}
        used = {name for node in model.graph.node for name in node.input}
        assert {tensor.name for tensor in model.graph.initializer} <= used


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_as_in_the_newer_graphs(family: str, lowered: dict[str, Bundle]) -> None:
    bundle = lowered[family]
    for model in models(bundle):
        names = sorted(node.name for node in model.graph.node)
        assert all(names) and len(set(names)) == len(names)
        assert [(a, b) for a, b in zip(names, names[1:], strict=False) if b.startswith(a)] == []
    for graph, dtype in itertools.product(GRAPHS, DTYPES):
        old, new = (
            onnx.load(str(bundle.path(bundle.variant(graph, f"{d}-{dtype}").file)), load_external_data=False)
            for d in ("primitive17", "primitive")
        )
        matmuls = [[n.name for n in m.graph.node if n.op_type in ("MatMul", "Conv")] for m in (old, new)]
        assert matmuls[0] == matmuls[1]
        weights = [{t.name: t for t in m.graph.initializer if t.external_data} for m in (old, new)]
        assert weights[0] == weights[1] and weights[0]
        # Not a byte more of weights
        assert (
            bundle.variant(graph, f"primitive17-{dtype}").weights == bundle.variant(graph, f"primitive-{dtype}").weights
        )


def test_the_library_s_opset_decides(lowered: dict[str, Bundle]) -> None:
    def chosen(version: str, **asked: str) -> list[str]:
        row = find_version(version)
        found = choose(lowered["edge"], dialects=row.dialects, max_opset=row.max_opset, compute_capability=9.0, **asked)
        return [choice.variant for choice in found]

    assert chosen("8.6.1") == ["primitive17-fp16"] * 3 + ["primitive-fp32"]
    assert chosen("8.6.1", variant="primitive-fp32") == ["primitive-fp32"] * 4
    assert chosen("10.3.0") == ["primitive-fp16"] * 3 + ["primitive-fp32"]
    assert chosen("10.3.0", variant="primitive17-fp32") == ["primitive17-fp32"] * 3 + ["primitive-fp32"]
    for graph in GRAPHS:
        assert choose_variant(lowered["edge"], graph) == "primitive-fp32"


@pytest.mark.parametrize("changed", [{}, {"antialias": 1}, {"keep_aspect_ratio_policy": "not_larger"}])
def test_scaling_up(changed: dict[str, object]) -> None:
    """Of the decoders of videos: as it was, where nothing of what is new is used."""
    attributes = {"mode": "nearest", "antialias": 0, "keep_aspect_ratio_policy": "stretch"}
    attributes.update(coordinate_transformation_mode="asymmetric", nearest_mode="floor", **changed)
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 1, 2, 2], np.float32), "scales")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 2, 3, 4, 5]), ("y", [1, 2, 3, 8, 10]))
    ]
    node = onnx.helper.make_node("Resize", ["x", "", "scales"], ["y"], name="n00001/Resize", **attributes)
    graph = onnx.helper.make_graph([node], "up", values[:1], values[1:], [scales])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    model = ir.from_proto(made)
    if changed:
        with pytest.raises(InternalError, match="Resize"):
            lower_to_opset17(model)
        return
    lower_to_opset17(model)
    lowered, x = ir.to_proto(model), np.random.RandomState(0).standard_normal((1, 2, 3, 4, 5)).astype(np.float32)
    onnx.checker.check_model(lowered, full_check=True)
    answers = [onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0] for m in (made, lowered)]
    np.testing.assert_array_equal(*answers)


def test_they_are_not_quantized(lowered: dict[str, Bundle]) -> None:
    plan = make_plan(lowered["edge"], load_recipe("w8a16"))
    assert plan.variants == ("primitive-fp32", "primitive-fp16", "fused-fp16", "fused-bf16")
    assert plan.bases("solver_step") == ["primitive-fp32"]
    with pytest.raises(UsageError, match="primitive17-fp16"):
        make_plan(lowered["edge"], load_recipe("w8a16"), variants=["primitive17-fp16"])


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
@pytest.mark.parametrize("graph", [*GRAPHS, *WEIGHTLESS_GRAPHS])
def test_a_real_parser_and_builder_take_them(graph: str, lowered: dict[str, Bundle]) -> None:
    """Not the one that they are for, which is a server's: its successor without a GPU."""
    bundle = lowered["edge"]
    variant = "primitive-fp32" if graph in WEIGHTLESS_GRAPHS else "primitive17-fp16"
    entry = bundle.variant(graph, variant)
    size, built = build_engine(bundle.path(entry.file), bundle.contract(graph), "8.9", dtype=entry.dtype)
    assert size > sum(bundle.manifest.files[name].bytes for name in entry.weights)
    # As in the graphs of opset 20: the timestep's two projections
    assert len(built.raised_precision) == (2 if graph == "gen_step" else 0)
