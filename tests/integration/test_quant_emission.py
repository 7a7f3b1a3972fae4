"""Quantized graphs against ModelOpt's fake quantization, projection by projection and as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from graph_run import run_graph
from modelopt_oracle import ModelOptProjection, modelopt_quantized
from onnx_reference import UNIT_ROUNDOFF
from quant_emitted import emit, feeds_of, open_emitted, probe, run_engine
from quant_scene import GEN, UND, QuantScene
from torch import nn

from motedge.quant.fake_quant import fake_quantized
from motedge.quant.numerics.activation import fake_quantize
from motedge.quant.numerics.weight import quantize_weight
from motedge.quant.parameters import SiteParameters
from motedge.quant.recipe import builtin_recipes
from motedge.quant.replay import repeat_forward
from motedge.quant.schemes import NVFP4
from motedge.quant.sites import module_sites
from motedge.runtime.comparison import compare

pytest.importorskip("modelopt")
# Super differs from Nano in sizes alone
FAMILIES = ("edge", "nano", pytest.param("super", marks=pytest.mark.slow))
RECIPES = tuple(builtin_recipes())
Oracle = Callable[[nn.Module, Mapping[str, SiteParameters]], AbstractContextManager[object]]


def emulated(module: nn.Module, parameters: Mapping[str, SiteParameters]) -> AbstractContextManager[object]:
    """Our own emulation, of fp32 graphs."""
    return fake_quantized(module, parameters, torch.float32)


@pytest.mark.parametrize("graph", [UND, GEN])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_projection_computes_what_modelopt_computes(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, family: str, recipe: str, graph: str
) -> None:
    """Given the same input. Where an activation lies on the border between two codes, rounding may go either way:
    ModelOpt multiplies by 448 / amax where Q/DQ divides by amax / 448. One such value in a thousand rows is 1e-7. NVFP4
    computes in the same order as its oracle, but the oracle's quotients are fp64: a value in some 100,000 flips."""
    scene = quant_scenes[family]
    emission = emit(scene, graph, "primitive-fp32", recipe, tmp_path)
    weights = {name: layer.weight for name, (_, layer) in module_sites(scene.towers[graph].module).items()}
    for site, (x, y) in probe(scene, emission, tmp_path).items():
        known = emission.parameters[site]
        expected = ModelOptProjection(weights[site], known)(torch.from_numpy(x)).numpy()
        found = compare(site, y, expected)
        if known.scheme.activation is not None:
            assert found.cosine is not None and found.cosine >= 1 - 1e-6, (site, found)
        if known.scheme.activation == NVFP4:
            flipped = np.abs(y - expected).reshape(-1, y.shape[-1]).max(-1) >= 1e-5
            assert flipped.mean() < 0.02, (site, found, int(flipped.sum()), "rows hold a flipped value")
        elif known.scheme.activation is None:
            assert found.max_abs_error is not None and found.max_abs_error < 1e-5, (site, found)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("oracle", [modelopt_quantized, emulated], ids=["modelopt", "emulation"])
def test_the_generator_as_a_whole(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, oracle: Oracle, family: str, recipe: str
) -> None:
    """Weights alone: equal. Quantized activations amplify differences of one unit in the last place from layer to
    layer: two torch forms of one emulation differ as much (docs/log.md), so that only the difference's size is held."""
    scene, forward = quant_scenes[family], quant_scenes[family].forwards[1]
    emission = emit(scene, GEN, "primitive-fp32", recipe, tmp_path)
    found = run_engine(scene, emission, tmp_path, forward)
    with oracle(scene.towers[GEN].module, emission.parameters):
        expected = repeat_forward(scene.towers[GEN], forward)
    for name, value in found.items():
        result = compare(name, value, expected[name])
        if any(known.scheme.activation for known in emission.parameters.values()):
            own_error = compare(name, value, forward.outputs[name])
            assert result.relative_l2 < max(0.02, 0.8 * own_error.relative_l2), (name, result, own_error)
        else:
            assert result.max_abs_error < 1e-5, (name, result)


@pytest.mark.parametrize("recipe", ["fp8-w8a16", "int4-awq", "nvfp4-w4a16", "w8a16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_reasoner_as_a_whole(quant_scenes: dict[str, QuantScene], tmp_path: Path, family: str, recipe: str) -> None:
    scene = quant_scenes[family]
    emission = emit(scene, UND, "primitive-fp32", recipe, tmp_path)
    found = run_graph(open_emitted(scene, emission, tmp_path), feeds_of(scene, UND))
    with modelopt_quantized(scene.towers[UND].module, emission.parameters):
        expected = run_graph(scene.towers[UND], feeds_of(scene, UND))
    for name, value in found.items():
        result = compare(name, value, expected[name])
        assert result.max_abs_error is not None and result.max_abs_error < 1e-5, (name, result)


@pytest.mark.parametrize("recipe", ["nvfp4", "nvfp4-w4a16"])
def test_tensorrts_form_of_nvfp4_computes_what_modelopt_computes(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, recipe: str
) -> None:
    """The whole fp16 graph in onnx's reference evaluator, each projection on the input that the graph gave it."""
    scene, dtype = quant_scenes["nano"], torch.float16
    emission = emit(scene, GEN, "fused-fp16", recipe, tmp_path)
    weights = {name: layer.weight for name, (_, layer) in module_sites(scene.towers[GEN].module).items()}
    for site, (x, y) in probe(scene, emission, tmp_path).items():
        projection = ModelOptProjection(weights[site], emission.parameters[site], dtype)
        result = compare(site, y, projection(torch.from_numpy(x)).numpy())
        # Steps and products are rounded to fp16, the sum once more
        assert result.relative_l2 is not None and result.relative_l2 < 2 * UNIT_ROUNDOFF["fp16"], (site, result)


@pytest.mark.parametrize("recipe", RECIPES)
def test_bf16_graphs_compute_the_emulation(quant_scenes: dict[str, QuantScene], tmp_path: Path, recipe: str) -> None:
    """onnxruntime can't run them; onnx's reference evaluator can. Scales are rounded to bf16 in both.

    Fails where a quotient is rounded to bf16 before it is rounded to a code (motedge.quant.emission.nodes).
    """
    scene, dtype = quant_scenes["edge"], torch.bfloat16
    emission = emit(scene, GEN, "fused-bf16", recipe, tmp_path)
    weights = {name: layer.weight for name, (_, layer) in module_sites(scene.towers[GEN].module).items()}
    for site, (x, y) in probe(scene, emission, tmp_path).items():
        known = emission.parameters[site]
        held = quantize_weight(site, weights[site], known, dtype).dequantize()
        quantized = fake_quantize(torch.from_numpy(x).to(dtype), known, dtype).float()
        result = compare(site, y, (quantized @ held).numpy())
        assert result.relative_l2 is not None and result.relative_l2 < 2 * UNIT_ROUNDOFF["bf16"], (site, result)
