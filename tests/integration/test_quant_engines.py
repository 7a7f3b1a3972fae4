"""Quantized graphs become engines where the GPU has the type, and are refused where it has not."""

from __future__ import annotations

from pathlib import Path

import pytest
from quant_scene import GEN, UND, QuantScene
from tensorrt_rtx_build import build_engine

from motedge.quant.emission.variant import plan_emission, write_quantized
from motedge.quant.recipe import builtin_recipes

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install motedge[test]")
# Compute capabilities that TensorRT-RTX builds for; Orin (8.7) and Thor (11.0) take TensorRT itself, on the device
CAPABILITIES = ("8.6", "8.9", "12.0")


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
    quant_scenes: dict[str, QuantScene], tmp_path: Path, family: str, graph: str, recipe: object, base: str
) -> None:
    scene = quant_scenes[family]
    emission = plan_emission(scene.bundle, graph, base, recipe.id, scene.parameters(graph, recipe))
    write_quantized(scene.bundle, emission, tmp_path)
    # What the graph itself uses: a recipe may give another type to the other tower
    needed = max(known.scheme.least_sm for known in emission.parameters.values())
    least = next(c for c in CAPABILITIES if float(c) >= needed)
    model, contract = tmp_path / emission.file, scene.bundle.contract(graph)
    assert build_engine(model, contract, least) > 0
    below = [c for c in CAPABILITIES if float(c) < needed]
    if below:
        with pytest.raises(ValueError, match="HW-specific datatypes"):
            build_engine(model, contract, below[-1])
