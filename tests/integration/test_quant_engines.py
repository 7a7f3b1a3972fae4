"""Quantized graphs become engines where the GPU has the type, and are refused where it has not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from quant_scene import GEN, UND, QuantScene
from quantized_projection import write_projection
from tensorrt_rtx_build import CAPABILITIES, build_engine

from motedge.quant.emission.variant import plan_emission, write_quantized
from motedge.quant.parameters import SiteParameters
from motedge.quant.recipe import Recipe, builtin_recipes
from motedge.quant.schemes import SCHEMES, Scheme
from motedge.targets.builders.builder import BuildError

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install motedge[test]")


@pytest.mark.parametrize("base", ["fused-fp16", "fused-bf16", "primitive-fp16"])
@pytest.mark.parametrize("recipe", builtin_recipes().values(), ids=lambda recipe: recipe.id)
@pytest.mark.parametrize(
    ("family", "graph"),
    [
        ("edge", GEN),
        ("edge", UND),
        ("nano", GEN),
        pytest.param("nano", UND, marks=pytest.mark.slow),
        pytest.param("super", GEN, marks=pytest.mark.slow),
        pytest.param("super", UND, marks=pytest.mark.slow),
    ],
)
def test_engines(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, family: str, graph: str, recipe: Recipe, base: str
) -> None:
    scene = quant_scenes[family]
    emission = plan_emission(scene.bundle, graph, base, recipe.id, scene.parameters(graph, recipe))
    write_quantized(scene.bundle, emission, tmp_path)
    # What the graph itself uses: a recipe may give another type to the other tower
    needed = max(known.scheme.least_sm for known in emission.parameters.values())
    fitting = [c for c in CAPABILITIES if float(c) >= needed]
    below = [c for c in CAPABILITIES if float(c) < needed]
    model, contract, dtype = tmp_path / emission.file, scene.bundle.contract(graph), emission.dtype
    schemes = {name: known.scheme for name, known in emission.parameters.items()}
    asked = {name: (scheme.activation or dtype, scheme.weight) for name, scheme in schemes.items()}
    size, built = build_engine(model, contract, *fitting, dtype=dtype, asked=asked)
    assert size > 0
    assert built.notes == ()
    # No projection is computed in more bits than its scheme asks for; the timestep's two are fp32 in every variant
    raised = {entry["layer"] for entry in built.raised_precision}
    assert raised == ({"time_embedder.linear_1/MatMul", "time_embedder.linear_2/MatMul"} if graph == GEN else set())
    if below:
        with pytest.raises(BuildError, match="HW-specific datatypes"):
            build_engine(model, contract, below[-1], dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.id)
def test_weights_stay_packed_in_the_engine(tmp_path: Path, scheme: Scheme, dtype: torch.dtype) -> None:
    """One projection, 1024 by 1024: 2.1 MB in 16 bits. An engine with unpacked weights would save nothing."""
    side = 1024
    weight = torch.randn(side, side, generator=torch.Generator().manual_seed(1)) * 0.02
    model = write_projection(tmp_path, weight, SiteParameters(scheme, 3.0), dtype, 64, inspect=False)
    packed = side * side * scheme.weight_bits / 8
    least = next(c for c in CAPABILITIES if float(c) >= scheme.least_sm)
    # What is not weights, kernels above all, takes up to 0.3 MB
    assert packed < build_engine(model, None, least)[0] < packed + 0.35e6
