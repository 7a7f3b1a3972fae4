"""Graphs as planning reads them, held against those who know better: quantized graphs, configurations, TensorRT-RTX."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from quant_emitted import emit
from quant_scene import GEN, UND, QuantScene
from tensorrt_rtx_build import build_engine

from motedge.bundle import Bundle
from motedge.checkpoint.config import ModelConfig
from motedge.quant.recipe import builtin_recipes, load_recipe
from motedge.quant.source import BundleWeights
from motedge.targets.graph.kernels import fused, one_each
from motedge.targets.graph.liveness import activation_peak
from motedge.targets.graph.model import Graph
from motedge.targets.graph.quantized import apply_recipe, sites
from motedge.targets.graph.read import parse_graph, read_graph
from motedge.targets.graph.sizes import MAX, OPT, sizes_at
from motedge.targets.graph.values import Values
from motedge.targets.graph.work import graph_work
from motedge.targets.plan.assumptions import WORKSPACE
from motedge.targets.roofline.model import PRECISIONS, encode_image, generator_step, prompt_prefill
from motedge.targets.roofline.work import Work

pytestmark = pytest.mark.slow
# What one recipe more would show is seen in the others
RECIPES = ("fp8", "int8-sq", "int4-awq", "nvfp4", "mixed", "w8a16")


def of_kind(work: Work, *kinds: str) -> float:
    return sum(operator.times * operator.flops for operator in work.operators if operator.kind in kinds)


def in_types(work: Work) -> dict[str, float]:
    found: dict[str, float] = {}
    for operator in work.operators:
        if operator.kind == "gemm":
            found[operator.type] = found.get(operator.type, 0.0) + operator.times * operator.flops
    return found


@pytest.fixture(scope="module", params=["edge", "nano"])
def scene(request: pytest.FixtureRequest, quant_scenes: dict[str, QuantScene]) -> QuantScene:
    return quant_scenes[request.param]


@pytest.mark.parametrize("graph", [UND, GEN])
def test_projections_are_those_that_quantize_knows(scene: QuantScene, graph: str) -> None:
    known = [site.name for site in BundleWeights(scene.bundle, graph, "fused-fp16").sites()]
    read = read_graph(scene.bundle, graph, "fused-fp16", sizes_at(scene.bundle.contract(graph), OPT))
    assert sorted(sites(read)) == sorted(known) and known


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("graph", "base"), [(UND, "fused-fp16"), (GEN, "fused-fp16"), (GEN, "primitive-fp16")])
def test_a_planned_recipe_is_the_graph_that_quantize_writes(
    scene: QuantScene, graph: str, base: str, recipe: str, tmp_path: Path
) -> None:
    emission = emit(scene, graph, base, recipe, tmp_path)
    contract = scene.bundle.contract(graph)
    sizes = sizes_at(contract, OPT)
    shapes = {spec.name: spec.shape(sizes) for spec in contract.inputs}
    written = parse_graph(graph, "fp16", tmp_path / emission.file, shapes)
    planned = apply_recipe(read_graph(scene.bundle, graph, base, sizes), load_recipe(recipe))
    assert planned.weight_bytes == pytest.approx(written.weight_bytes, rel=0.005)
    works = [_work(made) for made in (planned, written)]
    assert in_types(works[0]) == pytest.approx(in_types(works[1]), rel=1e-9)
    assert works[0].bytes == pytest.approx(works[1].bytes, rel=0.03)
    peaks = [activation_peak(Values(made), one_each(Values(made)), in_place=True).bytes for made in (planned, written)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.03)


def test_every_recipe_applies(scene: QuantScene) -> None:
    clean = read_graph(scene.bundle, GEN, "fused-fp16", sizes_at(scene.bundle.contract(GEN), OPT))
    for recipe in builtin_recipes().values():
        assert apply_recipe(clean, recipe).weight_bytes < clean.weight_bytes


def _work(graph: Graph) -> Work:
    values = Values(graph)
    return graph_work(values, fused(values))


@pytest.mark.parametrize("variant", ["fused-bf16", "primitive-fp16"])
def test_work_is_that_of_the_configuration(scene: QuantScene, variant: str) -> None:
    """Both dialects; the configuration's arithmetic leaves the heads out, and of the last layer counts all."""
    bundle, dtype = scene.bundle, variant.rpartition("-")[2]
    config = ModelConfig.from_dict(bundle.manifest.model["config"])
    sizes = sizes_at(bundle.contract(GEN), OPT)
    counted = _work(read_graph(bundle, GEN, variant, sizes))
    expected = generator_step(config, sizes["N"], sizes["U"], PRECISIONS[dtype])
    inside = sum(flops for kind, flops in in_types(counted).items() if kind == dtype)
    heads = (
        2.0 * config.hidden_size * (sizes["T"] * 6 * 2 * config.patch_latent_dim + 2 * sizes["A"] * config.action_dim)
    )
    assert of_kind(counted, "attention") == pytest.approx(of_kind(expected, "attention"), rel=1e-9)
    assert inside == pytest.approx(of_kind(expected, "gemm") + heads, rel=0.02)
    prefill = sizes_at(bundle.contract(UND), OPT)
    layers = config.num_hidden_layers
    counted = _work(read_graph(bundle, UND, variant, prefill))
    expected = prompt_prefill(config, prefill["S"], PRECISIONS[dtype])
    # Only K and V of the last layer are asked for; primitive graphs compute masked scores too
    share = (layers - 1) / layers * (2 if variant.startswith("primitive") else 1)
    assert of_kind(counted, "attention") == pytest.approx(share * of_kind(expected, "attention"), rel=1e-9)
    assert of_kind(counted, "gemm") < of_kind(expected, "gemm")


def test_dialects_agree(scene: QuantScene) -> None:
    """Spelled out or fused, an operator's work is the same; weights differ by constants alone."""
    found = []
    for variant in ("fused-fp16", "primitive-fp16"):
        graph = read_graph(scene.bundle, GEN, variant, sizes_at(scene.bundle.contract(GEN), OPT))
        found.append((_work(graph), graph.weight_bytes))
    (one, one_bytes), (other, other_bytes) = found
    for kind in ("gemm", "attention"):
        assert of_kind(one, kind) == pytest.approx(of_kind(other, kind), rel=1e-9)
    assert one_bytes == pytest.approx(other_bytes, rel=0.001)


def test_frames_and_prompts_cost_what_they_should(scene: QuantScene) -> None:
    contract = scene.bundle.contract(GEN)
    tokens = {frames: sizes_at(contract, OPT, frames=frames)["N"] for frames in (3, 6)}
    work = {
        frames: _work(read_graph(scene.bundle, GEN, "fused-fp16", sizes_at(contract, OPT, frames=frames)))
        for frames in tokens
    }
    ratio = in_types(work[6])["fp16"] / in_types(work[3])["fp16"]
    assert ratio == pytest.approx(tokens[6] / tokens[3], rel=0.05)
    longer = _work(read_graph(scene.bundle, GEN, "fused-fp16", sizes_at(contract, OPT, und_len=512)))
    usual = _work(read_graph(scene.bundle, GEN, "fused-fp16", sizes_at(contract, OPT)))
    keys = contract.profile["N"][1] + 512, contract.profile["N"][1] + contract.profile["U"][1]
    assert of_kind(longer, "attention") / of_kind(usual, "attention") == pytest.approx(keys[0] / keys[1], rel=1e-9)


@pytest.mark.parametrize("variant", ["fused-fp16", "fused-bf16", "primitive-fp16"])
@pytest.mark.parametrize("graph", [UND, GEN, "vae_encoder"])
def test_activation_memory_is_what_tensorrt_rtx_reserves(
    scene: QuantScene, graph: str, variant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The builder states it when it is done, without a GPU: "Total Activation Memory"."""
    if graph == "vae_encoder" and variant != "fused-fp16":
        pytest.skip("one variant of the encoder will do")
    bundle: Bundle = scene.bundle
    contract = bundle.contract(graph)
    dtype = variant.rpartition("-")[2]
    with caplog.at_level(logging.DEBUG, "motedge.engine_library"):
        build_engine(bundle.path(bundle.variant(graph, variant).file), contract, "8.9", dtype=dtype)
    stated = re.findall(r"Total Activation Memory: (\d+) bytes", caplog.text)
    assert stated
    values = Values(read_graph(bundle, graph, variant, sizes_at(contract, MAX)))
    planned = activation_peak(values, fused(values, epilogues=False), in_place=False).bytes + (WORKSPACE.value or 0)
    assert planned == pytest.approx(int(stated[-1]), rel=0.08)


def test_the_vae_encoder_is_its_configuration_at_full_size() -> None:
    """Its arithmetic in the catalogue of models, against the 0.656 TFLOP that the full-size graph counts to."""
    assert encode_image((544, 736)).flops == pytest.approx(0.656e12, rel=0.05)
