"""The reasoner's modules and contracts: every weight of the checkpoint once, attention and GELU by definition."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny import FAMILIES, MINI

from motedge.checkpoint.keys import tower_of, transformer_shapes
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.presets import SIZES, preset
from motedge.checkpoint.reader import Checkpoint
from motedge.checkpoint.vision_config import SIGLIP2
from motedge.checkpoint.vision_keys import vision_shapes
from motedge.errors import ExportError
from motedge.export import reasoner_contracts
from motedge.export.modules.layers import Precision
from motedge.export.modules.reasoner import Reasoner, ReasonerFront, attend_masked
from motedge.export.modules.vision_layers import gelu_erf, gelu_tanh
from motedge.export.modules.vision_qwen3 import QwenEncoder
from motedge.export.modules.vision_siglip2 import SiglipEncoder
from motedge.export.reasoner_graphs import REASONER_EXTRAS
from motedge.export.weights import LAYOUTS, plan_weights

FP32 = Precision("primitive", torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES)
def test_modules_take_every_weight_of_the_checkpoint_once(family: str, size: str) -> None:
    config, vision = preset(family, size).transformer, preset(family, size).vision
    with torch.device("meta"):
        und = Reasoner(config, FP32)
        encoder = (SiglipEncoder if vision.model_type == SIGLIP2 else QwenEncoder)(vision, FP32)
    shapes = transformer_shapes(config)
    # The embedding table is looked up on the host
    assert {w.name for w in plan_weights(und)} == {k for k in shapes if tower_of(k) == "und"} - {"embed_tokens.weight"}
    known = vision_shapes(vision)
    # The position table is resized on the host
    on_host = {key for key in known if key.endswith(("position_embedding.weight", "pos_embed.weight"))}
    planned = {w.name: w for w in plan_weights(encoder)}
    assert len(on_host) == 1 and planned.keys() == known.keys() - on_host
    for name, weight in planned.items():
        assert torch.Size(weight.shape).numel() == torch.Size(known[name]).numel()


@pytest.mark.parametrize("family", FAMILIES)
def test_contracts(family: str) -> None:
    config, vision = preset(family, "full").transformer, preset(family, "full").vision
    und, encoder = reasoner_contracts.und(config, vision), reasoner_contracts.vision_encoder(vision)
    edge = family == "edge"
    names = ["embeddings", "cos", "sin", "past_kv", "past_length"]
    assert [spec.name for spec in und.inputs] == names + ([] if edge else ["deepstack"])
    assert [spec.name for spec in und.outputs] == ["logits", "kv", *(["k_for_gen"] if edge else [])]
    assert [spec.name for spec in encoder.outputs] == ["tokens", *([] if edge else ["deepstack"])]
    assert encoder.tensor("patches").dims == (1, "G", 4, 768 if edge else 1536)
    for contract in (und, encoder):
        for spec in (*contract.inputs, *contract.outputs):
            spec.shape(contract.optimum())
        assert type(contract).from_dict(contract.to_dict()) == contract


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (8, 1)])
def test_attention_with_a_mask_is_pytorchs(heads: tuple[int, int]) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(1, heads[0], 5, 16), torch.randn(1, heads[1], 9, 16), torch.randn(1, heads[1], 9, 16)
    mask = torch.where(torch.rand(5, 9) < 0.5, 0.0, torch.finfo(torch.float32).min / 2)
    mask[:, 0] = 0
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(attend_masked(q, k, v, mask, FP32), expected, rtol=0, atol=1e-6)


def test_mask_shows_what_the_buffer_holds_and_earlier_new_tokens() -> None:
    front = ReasonerFront(FP32)
    x, angles, buffer = torch.zeros(3, 8), torch.zeros(3, 2), torch.zeros(1, 2, 1, 4, 4)
    mask = front(x, angles, angles, buffer, torch.tensor([2.0]))[3]
    assert (mask == 0).tolist() == [
        [True, True, False, False, True, False, False],
        [True, True, False, False, True, True, False],
        [True, True, False, False, True, True, True],
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_hidden_slots_weigh_nothing_in_sixteen_bits(dtype: torch.dtype) -> None:
    mask = ReasonerFront(Precision("primitive", dtype))(
        torch.zeros(1, 8), torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2, 1, 3, 4), torch.tensor([1.0])
    )[3]
    weights = torch.softmax(mask + torch.tensor([-3.0, 300.0, 300.0, 1.0], dtype=dtype), dim=-1)
    assert torch.isfinite(mask).all() and weights[0, 1] == 0 == weights[0, 2]


def test_gelu() -> None:
    x = torch.linspace(-12, 12, 1001)
    torch.testing.assert_close(gelu_tanh(x), torch.nn.functional.gelu(x, approximate="tanh"), rtol=0, atol=2e-6)
    torch.testing.assert_close(gelu_erf(x), torch.nn.functional.gelu(x), rtol=0, atol=2e-6)
    large = torch.tensor([-60000.0, -300.0, 300.0, 30000.0], dtype=torch.float16)
    assert gelu_tanh(large).tolist() == [0.0, 0.0, 300.0, 30000.0]


def test_patch_embedding_as_a_matrix() -> None:
    torch.manual_seed(0)
    weight, patch = torch.randn(6, 3, 2, 4, 4), torch.randn(1, 3, 2, 4, 4)
    expected = torch.nn.functional.conv3d(patch, weight).flatten()
    torch.testing.assert_close(patch.flatten() @ LAYOUTS["patch_matrix"](weight), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("lacking", ["vision_config", "vision_encoder"])
def test_a_checkpoint_without_the_vision_encoder(tmp_path: Path, lacking: str) -> None:
    opened = Checkpoint.open(make_checkpoint(tmp_path / "edge", "edge"))
    partial = dataclasses.replace(opened, **{lacking: None})
    for spec in REASONER_EXTRAS["reasoner"]:
        with pytest.raises(ExportError, match="lacks the reasoner's vision encoder"):
            spec.contract_of(partial, MINI)
