"""Quantized graphs in onnxruntime against ModelOpt's fake quantization, projection by projection and as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from modelopt_oracle import modelopt_projection
from quant_scene import GEN, UND, QuantScene

from motedge.bundle import Bundle
from motedge.export.weights import DTYPES
from motedge.quant.emission.variant import Emission, emission_facts, plan_emission, write_quantized
from motedge.quant.fake_quant import fake_quantized
from motedge.quant.recipe import builtin_recipes, load_recipe
from motedge.quant.replay import Forward, repeat_forward
from motedge.quant.schemes import FP8, INT8
from motedge.quant.sites import module_sites
from motedge.runtime.backends.onnxruntime import OnnxRuntimeEngine
from motedge.runtime.comparison import compare
from motedge.runtime.engine import EngineOptions

pytest.importorskip("modelopt")
# Super differs from Nano in sizes alone
FAMILIES = ("edge", "nano", pytest.param("super", marks=pytest.mark.slow))
RECIPES = tuple(builtin_recipes())


def emit(scene: QuantScene, graph: str, base: str, recipe: str, out: Path) -> Emission:
    parameters = scene.parameters(graph, load_recipe(recipe))
    emission = plan_emission(scene.bundle, graph, base, recipe, parameters)
    write_quantized(scene.bundle, emission, out)
    return emission


def run_engine(scene: QuantScene, emission: Emission, out: Path, forward: Forward) -> dict[str, np.ndarray]:
    contract = scene.bundle.contract(emission.graph)
    engine = OnnxRuntimeEngine(out / emission.file, contract, emission.dtype, EngineOptions(threads=1))
    return repeat_forward(engine, forward)


def gen_feeds(forward: Forward) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in forward.inputs.items()}


def und_feeds(scene: QuantScene) -> dict[str, np.ndarray]:
    from motedge.runtime.rope import RotaryTable
    from motedge.runtime.tables import Tables

    tables, tokens = Tables.open(scene.bundle), scene.prompts[0][0]
    cos, sin = RotaryTable(tables.inv_freq(), scene.bundle.manifest.model["config"]).text(tokens.size)
    return {"embeddings": tables.embeddings(tokens), "cos": cos, "sin": sin}


def probe(scene: QuantScene, emission: Emission, out: Path, feeds: dict[str, np.ndarray]) -> dict[str, tuple]:
    """Input and output of every quantized projection inside the graph: site -> (x, y)."""
    model = onnx.load(str(out / emission.file), load_external_data=False)
    clean = onnx.load(
        str(scene.bundle.path(scene.bundle.variant(emission.graph, emission.base).file)), load_external_data=False
    )
    inputs = {node.name: node.input[0] for node in clean.graph.node}
    nodes = {node.name: node for node in model.graph.node}
    places = {site: (inputs[f"{site}/MatMul"], nodes[f"{site}/MatMul"].output[0]) for site in emission.parameters}
    known = {value.name for value in model.graph.output}
    for name in dict.fromkeys(name for pair in places.values() for name in pair if name not in known):
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    path = (out / emission.file).with_suffix(".probe.onnx")
    path.write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    found = dict(zip(names, session.run(names, feeds), strict=True))
    return {site: (found[x], found[y]) for site, (x, y) in places.items()}


@pytest.mark.parametrize("graph", [UND, GEN])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_projection_computes_what_modelopt_computes(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, family: str, recipe: str, graph: str
) -> None:
    """Given the same input. Where a value lies on the border between two codes, rounding may go either way: ModelOpt
    multiplies by 448 / amax where Q/DQ divides by amax / 448, and weights that were bf16 lie on borders often."""
    scene = quant_scenes[family]
    emission = emit(scene, graph, "primitive-fp32", recipe, tmp_path)
    feeds = und_feeds(scene) if graph == UND else gen_feeds(scene.forwards[1])
    weights = {name: layer.weight for name, (_, layer) in module_sites(scene.towers[graph].module).items()}
    for site, (x, y) in probe(scene, emission, tmp_path, feeds).items():
        known = emission.parameters[site]
        expected = modelopt_projection(torch.from_numpy(x), weights[site], known).numpy()
        found = compare(site, y, expected)
        if FP8 in (known.scheme.weight, known.scheme.activation) or known.scheme.activation == INT8:
            assert found.cosine is not None and found.cosine >= 0.9999, (site, found)
        else:
            assert found.max_abs_error is not None and found.max_abs_error < 1e-5, (site, found)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", ["edge", "nano"])
def test_the_emulation_in_torch_is_the_graph(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, family: str, recipe: str
) -> None:
    """As a whole. Static 8-bit activations amplify differences of one unit in the last place from layer to layer: two
    torch forms of one emulation differ as much (docs/log.md), so that there only the size of the difference is held."""
    scene, forward = quant_scenes[family], quant_scenes[family].forwards[1]
    emission = emit(scene, GEN, "primitive-fp32", recipe, tmp_path)
    found = run_engine(scene, emission, tmp_path, forward)
    with fake_quantized(scene.towers[GEN].module, emission.parameters, DTYPES["fp32"]):
        emulated = repeat_forward(scene.towers[GEN], forward)
    static = any(p.scheme.activation in (FP8, INT8) for p in emission.parameters.values())
    for name, value in found.items():
        result = compare(name, value, emulated[name])
        if static:
            own_error = compare(name, value, forward.outputs[name])
            assert result.relative_l2 < max(0.02, 0.8 * own_error.relative_l2), (name, result, own_error)
        else:
            assert result.max_abs_error < 2e-5, (name, result)


def test_fp16_graphs_scale_the_range_with_their_activations(
    quant_scenes: dict[str, QuantScene], tmp_path: Path
) -> None:
    """Edge squares its activations; an fp16 graph scales them down before, and the calibrated range must follow."""
    scene, forward = quant_scenes["edge"], quant_scenes["edge"].forwards[1]
    for base in ("primitive-fp16", "fused-fp16"):
        emission = emit(scene, GEN, base, "int8-sq", tmp_path)
        found = run_engine(scene, emission, tmp_path, forward)
        for name, value in found.items():
            result = compare(name, value, forward.outputs[name])
            # With the range of unscaled activations every value of down_proj would round to zero
            assert result.relative_l2 < 0.05, (base, name, result)


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
    from damage import overwrite_weight

    scene = quant_scenes["edge"]
    bundle = overwrite_weight(scene.bundle, GEN, "layers.1.self_attn.add_q_proj.weight", np.nan, tmp_path / "b")
    parameters = scene.parameters(GEN, load_recipe("fp8"))
    emission = plan_emission(bundle, GEN, "primitive-fp32", "fp8", parameters)
    with pytest.raises(Exception, match=r"layers\.1\.self_attn\.add_q_proj\.weight.*NaN"):
        write_quantized(bundle, emission, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_an_unknown_projection(quant_scenes: dict[str, QuantScene]) -> None:
    scene = quant_scenes["edge"]
    parameters = scene.parameters(GEN, load_recipe("w8a16"))
    known = next(iter(parameters.values()))
    with pytest.raises(Exception, match=r"has no projection layers\.9"):
        plan_emission(scene.bundle, GEN, "primitive-fp32", "w8a16", {"layers.9.mlp_moe_gen.up_proj": known})


def test_a_quantized_bundle_is_no_source(quant_scenes: dict[str, QuantScene], tmp_path: Path) -> None:
    import dataclasses

    from motedge.quant.source import best_variant

    bundle = quant_scenes["edge"].bundle
    variant = dataclasses.replace(bundle.variant(GEN, "primitive-fp32"), recipe="fp8")
    entry = dataclasses.replace(bundle.graph(GEN), variants={"primitive-fp32-fp8": variant})
    manifest = dataclasses.replace(bundle.manifest, graphs={**bundle.manifest.graphs, GEN: entry})
    with pytest.raises(Exception, match="quantized already"):
        best_variant(Bundle(bundle.root, manifest), GEN)
