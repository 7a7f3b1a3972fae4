"""The bound on squared ReLU's input: true for every input, reached by the worst, and turned into a power of two."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from damage import edit_weights, transformer_file
from hypothesis import given
from hypothesis import strategies as st
from tiny import MINI

from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.export.graphs import GRAPHS
from motedge.export.relu2 import FP16_MAX, Relu2Range, relu2_ranges, scale_for, unproven_layers
from motedge.export.variants import REFERENCE, VARIANTS

TOWERS = {"und": ("post_attention_layernorm", "mlp"), "gen": ("post_attention_layernorm_moe_gen", "mlp_moe_gen")}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny Edge whose squares go far beyond fp16: up_proj 200 times as large. down_proj makes half good for it."""
    root = make_checkpoint(tmp_path_factory.mktemp("relu2") / "edge", "edge", "policy-droid", "tiny", seed=7)
    edit_weights(transformer_file(root), enlarge)
    return Checkpoint.open(root)


def enlarge(tensors: dict[str, torch.Tensor]) -> None:
    for name, value in tensors.items():
        if name.endswith("up_proj.weight"):
            value.mul_(200)
        if name.endswith("down_proj.weight"):
            value.mul_(0.01)


# Beyond FP16_MAX the activation itself has left fp16, and nothing is promised: unproven_layers names such layers
@given(st.floats(1e-3, FP16_MAX))
def test_the_scale_is_the_largest_power_of_two_that_is_safe(bound: float) -> None:
    scale = scale_for(bound)
    assert scale <= 1 and math.frexp(scale)[0] == 0.5
    assert (bound * scale) ** 2 <= FP16_MAX
    assert scale == 1 or (2 * bound * scale) ** 2 > FP16_MAX * 0.98


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("layer", [0, 1])
def test_no_input_exceeds_the_bound_and_the_worst_reaches_it(tower: str, layer: int, checkpoint: Checkpoint) -> None:
    graph = "und_prefill" if tower == "und" else "gen_step"
    module = GRAPHS[graph].module(checkpoint, MINI, REFERENCE).layers[layer]
    norm, mlp = (getattr(module, name) for name in TOWERS[tower])
    bound = relu2_ranges(checkpoint.config, checkpoint.transformer, tower)[layer].bound
    width = checkpoint.config.hidden_size
    random = torch.Generator().manual_seed(1)
    inputs = torch.randn(4096, width, generator=random) * torch.logspace(-6, 6, 4096)[:, None]
    one_hot = torch.eye(width) * 1e4
    # The direction that Cauchy-Schwarz turns into an equality: the row of up_proj times the norm's weight
    worst = (mlp.up_proj.weight * norm.weight[:, None]).T
    with torch.inference_mode():
        reached = {
            name: mlp.up_proj(norm(x)).max().item()
            for name, x in (("random", inputs), ("one hot", one_hot), ("worst", worst))
        }
    assert max(reached.values()) <= bound * (1 + 1e-5), reached
    assert reached["worst"] >= bound * 0.999, reached
    assert reached["random"] >= bound * 0.1, reached  # the bound is of use: within a factor of what is usual


@pytest.mark.parametrize("tower", TOWERS)
def test_large_weights_need_the_scale_and_only_fp16_gets_it(tower: str, checkpoint: Checkpoint) -> None:
    graph = GRAPHS["und_prefill" if tower == "und" else "gen_step"]
    ranges = graph.relu2_ranges(checkpoint, VARIANTS["primitive-fp16"])
    assert len(ranges) == checkpoint.config.num_hidden_layers
    assert all(r.bound**2 > FP16_MAX and r.scale == 2**-4 for r in ranges)
    for variant in ("primitive-fp32", "fused-bf16"):
        assert graph.relu2_ranges(checkpoint, VARIANTS[variant]) == []


@pytest.mark.parametrize("family", ["nano", "super"])
def test_gated_models_have_no_squares(family: str, tmp_path: Path) -> None:
    opened = Checkpoint.open(make_checkpoint(tmp_path / family, family, "policy-droid", "tiny", seed=7))
    assert GRAPHS["gen_step"].relu2_ranges(opened, VARIANTS["fused-fp16"]) == []


def test_the_layer_in_fp16_with_and_without_the_scale(checkpoint: Checkpoint) -> None:
    """The worst input there is, through the fp16 layer as torch runs it."""
    exact = GRAPHS["gen_step"].module(checkpoint, MINI, REFERENCE).layers[0]
    layer = GRAPHS["gen_step"].module(checkpoint, MINI, VARIANTS["primitive-fp16"]).layers[0]
    worst = (exact.mlp_moe_gen.up_proj.weight * exact.post_attention_layernorm_moe_gen.weight[:, None]).T
    worst = worst / worst.abs().amax()
    with torch.inference_mode():
        expected = exact.mlp_moe_gen(exact.post_attention_layernorm_moe_gen(worst))
        normed = layer.post_attention_layernorm_moe_gen(worst.half())
        result = layer.mlp_moe_gen(normed).float()
        for name in ("relu2_scale", "relu2_inverse"):
            getattr(layer.mlp_moe_gen, name).fill_(1)
        unscaled = layer.mlp_moe_gen(normed)
    error = (torch.linalg.vector_norm(result - expected) / torch.linalg.vector_norm(expected)).item()
    # Three matrix products' roundings of 2**-11 each, and the square doubles that of its input
    assert error < 4 * 2**-11
    assert not torch.isfinite(unscaled).all()


def test_layers_beyond_fp16_are_named_and_keep_a_finite_inverse() -> None:
    ranges = [Relu2Range(bound, scale_for(bound)) for bound in (10.0, 7e4, 1e9)]
    assert unproven_layers(ranges) == [1, 2]
    assert all(1 / known.scale <= FP16_MAX for known in ranges)
