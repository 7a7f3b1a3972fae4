"""What is written: packed files, unique names, ranges that follow the graph; and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from damage import overwrite_weight, record_again
from onnx import numpy_helper
from quant_emitted import emit, run_engine
from quant_scene import GEN, UND, QuantScene

from motedge.bundle import Bundle
from motedge.errors import BundleError, ExportError, HostError
from motedge.quant.emission import data_file
from motedge.quant.emission.variant import emission_facts, plan_emission, write_quantized
from motedge.quant.recipe import builtin_recipes, load_recipe
from motedge.quant.schemes import FP8, INT8
from motedge.quant.sites import module_sites
from motedge.quant.source import best_variant
from motedge.runtime.comparison import compare

RECIPES = tuple(builtin_recipes())
# Of layer l: to the power of 2 + l
RELU2_SCALE = 0.5


@pytest.fixture(scope="module")
def scaled_edge(quant_scenes: dict[str, QuantScene], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Tiny Edge as if its squares left fp16: another power of two in each layer. Its own weights need none."""
    root = tmp_path_factory.mktemp("scaled") / "bundle"
    shutil.copytree(quant_scenes["edge"].bundle.root, root)
    for graph in (UND, GEN):
        for base in ("primitive-fp16", "fused-fp16"):
            file = Bundle.open(root).variant(graph, base).file
            model = onnx.load(str(root / file), load_external_data=False)
            for tensor in model.graph.initializer:
                if tensor.name.endswith(("relu2_scale", "relu2_inverse")):
                    power = RELU2_SCALE ** (2 + int(tensor.name.split(".")[1]))
                    value = power if tensor.name.endswith("scale") else 1 / power
                    tensor.CopyFrom(
                        numpy_helper.from_array(np.full(tuple(tensor.dims), value, np.float16), tensor.name)
                    )
            (root / file).write_bytes(model.SerializeToString())
            record_again(root, file)
    return Bundle.open(root)


@pytest.mark.parametrize("recipe", ["fp8", "int8-sq", "nvfp4"])
@pytest.mark.parametrize("base", ["primitive-fp16", "fused-fp16"])
@pytest.mark.parametrize("graph", [UND, GEN])
def test_ranges_follow_the_scaled_squares_of_fp16_graphs(
    quant_scenes: dict[str, QuantScene], scaled_edge: Bundle, tmp_path: Path, graph: str, base: str, recipe: str
) -> None:
    scene = quant_scenes["edge"]
    parameters = scene.parameters(graph, load_recipe(recipe))
    scales = []
    for name, bundle in (("plain", scene.bundle), ("scaled", scaled_edge)):
        emission = plan_emission(bundle, graph, base, recipe, parameters)
        write_quantized(bundle, emission, tmp_path / name)
        model = onnx.load(str(tmp_path / name / emission.file), load_external_data=False)
        scales.append({t.name: t for t in model.graph.initializer if t.name.endswith(".input_scale")})
    assert scales[0].keys() == scales[1].keys()
    assert any(".down_proj" in name for name in scales[0])
    for name, tensor in scales[0].items():
        layer = int(name.split(".")[1])
        factor = RELU2_SCALE ** (2 * (2 + layer)) if ".down_proj" in name else 1.0
        plain, scaled = (float(numpy_helper.to_array(t).item()) for t in (tensor, scales[1][name]))
        # Exact but for fp16's steps of 2**-24 near zero
        assert scaled == pytest.approx(plain * factor, abs=2**-24), name


@pytest.mark.parametrize("base", ["primitive-fp16", "fused-fp16"])
def test_scaled_squares_leave_the_result(
    quant_scenes: dict[str, QuantScene], scaled_edge: Bundle, tmp_path: Path, base: str
) -> None:
    scene, forward = quant_scenes["edge"], quant_scenes["edge"].forwards[1]
    parameters = scene.parameters(GEN, load_recipe("int8-sq"))
    emission = plan_emission(scaled_edge, GEN, base, "int8-sq", parameters)
    write_quantized(scaled_edge, emission, tmp_path)
    for name, value in run_engine(scene, emission, tmp_path, forward).items():
        result = compare(name, value, forward.outputs[name])
        # With the range of unscaled activations every value of down_proj would round to zero
        assert result.relative_l2 < 0.05, (name, result)


@pytest.mark.parametrize("family", ["edge", "nano"])
def test_projections_of_one_input_share_its_quantization(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, family: str
) -> None:
    """q, k and v; gate and up. Four inputs a layer: attention's, its result's, the feed-forward's, and down's."""
    scene = quant_scenes[family]
    emission = emit(scene, GEN, "fused-bf16", "fp8", tmp_path)
    model = onnx.load(str(tmp_path / emission.file), load_external_data=False)
    layers = {site.layer for site, _ in module_sites(scene.towers[GEN].module).values()}
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 4 * len(layers)
    inputs = {node.name: node.input[0] for node in model.graph.node}
    q, k = (inputs[f"layers.0.self_attn.add_{letter}_proj/MatMul"] for letter in "qk")
    assert q == k != inputs["layers.0.self_attn.to_add_out/MatMul"]


def test_inputs_of_another_range_are_not_shared(quant_scenes: dict[str, QuantScene], tmp_path: Path) -> None:
    scene = quant_scenes["edge"]
    parameters = scene.parameters(GEN, load_recipe("fp8"))
    name = "layers.0.self_attn.add_k_proj"
    parameters[name] = dataclasses.replace(parameters[name], input_amax=2 * parameters[name].input_amax)
    emission = plan_emission(scene.bundle, GEN, "primitive-fp32", "fp8", parameters)
    write_quantized(scene.bundle, emission, tmp_path)
    model = onnx.load(str(tmp_path / emission.file), load_external_data=False)
    inputs = {node.name: node.input[0] for node in model.graph.node}
    q, k, v = (inputs[f"layers.0.self_attn.add_{letter}_proj/MatMul"] for letter in "qkv")
    assert q == v != k


@pytest.mark.parametrize("base", ["primitive-fp32", "primitive-fp16", "fused-fp16", "fused-bf16"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_files_are_packed_and_names_are_unique(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, recipe: str, base: str
) -> None:
    """write_quantized runs onnx's full checker; sizes of the projections follow from the scheme's bits."""
    scene = quant_scenes["nano"]
    emission = emit(scene, GEN, base, recipe, tmp_path)
    model = onnx.load(str(tmp_path / emission.file), load_external_data=False)
    names = sorted(node.name for node in model.graph.node)
    assert all(names) and len(set(names)) == len(names)
    assert not [a for a, b in zip(names, names[1:]) if b.startswith(a)], "quantizers match nodes by prefix"
    packed = {tensor.name: tensor for tensor in model.graph.initializer}
    sites = module_sites(scene.towers[GEN].module)
    for name, known in emission.parameters.items():
        bits = {FP8: 8, INT8: 8}.get(known.scheme.weight, 8 if emission.emulated else 4)
        length = next(int(e.value) for e in packed[f"{name}.weight"].external_data if e.key == "length")
        assert length * 8 == bits * sites[name][0].parameters
    facts = emission_facts(emission, tmp_path)
    assert facts["emulated"] == (base == "primitive-fp32" and recipe in ("nvfp4", "nvfp4-w4a16", "mixed"))
    assert sum(facts["sites"].values()) == len(sites)


def test_a_damaged_weight_leaves_nothing(quant_scenes: dict[str, QuantScene], tmp_path: Path) -> None:
    scene = quant_scenes["edge"]
    bundle = overwrite_weight(scene.bundle, GEN, "layers.1.self_attn.add_q_proj.weight", np.nan, tmp_path / "b")
    parameters = scene.parameters(GEN, load_recipe("fp8"))
    emission = plan_emission(bundle, GEN, "primitive-fp32", "fp8", parameters)
    with pytest.raises(BundleError, match=r"layers\.1\.self_attn\.add_q_proj\.weight.*NaN"):
        write_quantized(bundle, emission, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_an_unknown_projection(quant_scenes: dict[str, QuantScene]) -> None:
    scene = quant_scenes["edge"]
    parameters = scene.parameters(GEN, load_recipe("w8a16"))
    known = next(iter(parameters.values()))
    with pytest.raises(ExportError, match=r"has no projection layers\.9"):
        plan_emission(scene.bundle, GEN, "primitive-fp32", "w8a16", {"layers.9.mlp_moe_gen.up_proj": known})


def test_a_quantized_bundle_is_no_source(quant_scenes: dict[str, QuantScene], tmp_path: Path) -> None:
    bundle = quant_scenes["edge"].bundle
    variant = dataclasses.replace(bundle.variant(GEN, "primitive-fp32"), recipe="fp8")
    entry = dataclasses.replace(bundle.graph(GEN), variants={"primitive-fp32-fp8": variant})
    manifest = dataclasses.replace(bundle.manifest, graphs={**bundle.manifest.graphs, GEN: entry})
    with pytest.raises(BundleError, match="quantized already"):
        best_variant(Bundle(bundle.root, manifest), GEN)


def test_a_quantized_variant_is_no_base(quant_scenes: dict[str, QuantScene]) -> None:
    """In a bundle that has both: the message names the variant."""
    scene = quant_scenes["edge"]
    bundle, plain = scene.bundle, scene.bundle.variant(GEN, "fused-bf16")
    variants = {**bundle.graph(GEN).variants, "fused-bf16-fp8": dataclasses.replace(plain, recipe="fp8")}
    entry = dataclasses.replace(bundle.graph(GEN), variants=variants)
    both = Bundle(bundle.root, dataclasses.replace(bundle.manifest, graphs={**bundle.manifest.graphs, GEN: entry}))
    parameters = scene.parameters(GEN, load_recipe("w8a16"))
    with pytest.raises(BundleError, match=r"'fused-bf16-fp8'.*quantized already"):
        plan_emission(both, GEN, "fused-bf16-fp8", "w8a16", parameters)


@pytest.mark.parametrize("amax", [0.0, float("nan"), None])
def test_a_projection_without_a_range(quant_scenes: dict[str, QuantScene], amax: float | None) -> None:
    scene = quant_scenes["edge"]
    parameters = scene.parameters(GEN, load_recipe("fp8"))
    name = "layers.1.mlp_moe_gen.down_proj"
    parameters[name] = dataclasses.replace(parameters[name], input_amax=amax)
    with pytest.raises(ExportError, match=r"the input of layers\.1\.mlp_moe_gen\.down_proj has no range"):
        plan_emission(scene.bundle, GEN, "fused-bf16", "fp8", parameters)


def test_a_projection_without_its_matmul(quant_scenes: dict[str, QuantScene], tmp_path: Path) -> None:
    scene = quant_scenes["edge"]
    shutil.copytree(scene.bundle.root, tmp_path / "b")
    file = scene.bundle.variant(GEN, "fused-bf16").file
    model = onnx.load(str(tmp_path / "b" / file), load_external_data=False)
    node = next(n for n in model.graph.node if n.name == "layers.0.self_attn.add_v_proj/MatMul")
    node.name = "somewhere/MatMul"
    (tmp_path / "b" / file).write_bytes(model.SerializeToString())
    record_again(tmp_path / "b", file)
    bundle = Bundle.open(tmp_path / "b")
    emission = plan_emission(bundle, GEN, "fused-bf16", "fp8", scene.parameters(GEN, load_recipe("fp8")))
    with pytest.raises(ExportError, match=r"no MatMul of layers\.0\.self_attn\.add_v_proj"):
        write_quantized(bundle, emission, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_full_disk_keeps_what_was_there(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = quant_scenes["edge"]
    emission = emit(scene, GEN, "fused-bf16", "w8a16", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    calls = []

    def full(*_: object) -> None:
        calls.append(1)
        if len(calls) > 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(data_file, "write_chunks", full)
    with pytest.raises(HostError, match="the disk is full"):
        write_quantized(scene.bundle, emission, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_graph_that_fails_its_check_gets_no_name(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from motedge.quant.emission import variant

    def fail(path: Path) -> None:
        raise onnx.checker.ValidationError(f"{path.name} is not sound")

    monkeypatch.setattr(variant, "check_model", fail)
    with pytest.raises(onnx.checker.ValidationError, match="not sound"):
        emit(quant_scenes["edge"], GEN, "fused-bf16", "w8a16", tmp_path)
    assert not list(tmp_path.rglob("*.onnx*"))


def test_fp32_data_of_another_bundle_is_replaced(quant_scenes: dict[str, QuantScene], tmp_path: Path) -> None:
    """Weights that every variant keeps in fp32 lie in a file that variants share."""
    for family in ("edge", "nano"):
        scene = quant_scenes[family]
        emission = emit(scene, GEN, "fused-bf16", "w8a16", tmp_path)
        assert emission.kept
        for name in emission.kept:
            path = f"graphs/weights/{name}"
            assert (tmp_path / path).read_bytes() == scene.bundle.path(path).read_bytes()
