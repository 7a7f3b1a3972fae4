"""Names and shapes against the published parameter counts and against the libraries' own modules."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.checkpoint.config import FAMILIES
from motedge.checkpoint.keys import config_fields_of, tower_counts, tower_of, transformer_shapes
from motedge.checkpoint.presets import SIZES, preset
from motedge.checkpoint.vae_config import VaeConfig
from motedge.checkpoint.vae_keys import vae_part_of, vae_shapes
from motedge.checkpoint.vision_config import VisionConfig
from motedge.checkpoint.vision_keys import vision_shapes
from motedge.errors import CheckpointError, UsageError

# Published counts
UND = {"edge": 1_946_277_376, "nano": 8_190_735_360, "super": 32_762_123_264}
GEN = {"edge": 1_423_379_648, "nano": 6_982_933_760, "super": 31_257_613_568}
TRANSFORMER = {"edge": 3_369_657_024, "nano": 15_173_669_120, "super": 64_019_736_832}
VISION = {"edge": 489_342_704, "nano": 576_388_336, "super": 595_266_800}


def count(shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_full_towers_have_the_published_parameter_counts(family):
    shapes = transformer_shapes(preset(family, "full").transformer)
    assert tower_counts(shapes) == {"und": UND[family], "gen": GEN[family]}
    assert count(shapes) == TRANSFORMER[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_full_vision_encoder_has_the_published_parameter_count(family):
    assert count(vision_shapes(preset(family, "full").vision)) == VISION[family]


def test_edge_vision_encoder_has_443_tensors():
    assert len(vision_shapes(preset("edge", "full").vision)) == 443


def test_full_vae_has_the_published_parameter_counts():
    shapes = vae_shapes(preset("edge", "full").vae)
    assert count(shapes) == 704_688_668
    assert count({k: s for k, s in shapes.items() if k.startswith("encoder.")}) == 149_627_776
    assert count({k: s for k, s in shapes.items() if k.startswith("decoder.")}) == 555_049_228
    assert vae_part_of("quant_conv.weight") == "encoder" and vae_part_of("post_quant_conv.bias") == "decoder"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_transformer_shapes_are_those_of_diffusers(family, size):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    config = preset(family, size).transformer
    with torch.device("meta"):
        module = diffusers.Cosmos3OmniTransformer.from_config(config.to_dict())
    assert {k: tuple(v.shape) for k, v in module.state_dict().items()} == transformer_shapes(config)


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    hidden=st.integers(1, 9),
    heads=st.integers(1, 4),
    group=st.integers(1, 3),
    wide=st.integers(1, 70),
    layers=st.integers(1, 3),
    text_norm=st.booleans(),
    und_norm=st.booleans(),
    action=st.booleans(),
    sound=st.booleans(),
)
def test_any_configuration_has_the_shapes_of_diffusers(
    family, hidden, heads, group, wide, layers, text_norm, und_norm, action, sound
):
    import torch
    from diffusers import Cosmos3OmniTransformer

    config = dataclasses.replace(
        preset(family, "tiny").transformer,
        hidden_size=32 * hidden,
        num_attention_heads=heads * group,
        num_key_value_heads=heads,
        intermediate_size=wide,
        num_hidden_layers=layers,
        qk_norm_for_text=text_norm,
        use_und_k_norm_for_gen=und_norm,
        action_gen=action,
        sound_gen=sound,
        sound_dim=64,
    )
    with torch.device("meta"):
        module = Cosmos3OmniTransformer.from_config(config.to_dict())
    assert {k: tuple(v.shape) for k, v in module.state_dict().items()} == transformer_shapes(config)


@pytest.mark.parametrize("size", SIZES)
def test_vae_shapes_are_those_of_diffusers(size):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    config = preset("edge", size).vae
    with torch.device("meta"):
        module = diffusers.AutoencoderKLWan.from_config(config.to_dict())
    assert {k: tuple(v.shape) for k, v in module.state_dict().items()} == vae_shapes(config)


@pytest.mark.parametrize("family", ["nano", "super"])
@pytest.mark.parametrize("size", ["tiny", "full"])
def test_qwen_vision_shapes_are_those_of_transformers(family, size):
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.qwen3_vl.modeling_qwen3_vl")
    config = preset(family, size).vision
    with torch.device("meta"):
        module = modeling.Qwen3VLVisionModel(modeling.Qwen3VLVisionConfig(**config.to_dict()))
    assert {k: tuple(v.shape) for k, v in module.state_dict().items()} == vision_shapes(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_in_the_tower_that_the_model_computes_it_in(family):
    shapes = transformer_shapes(preset(family, "tiny").transformer)
    gen = {key for key in shapes if tower_of(key) == "gen"}
    for key in ("proj_in.bias", "time_embedder.linear_2.weight", "action_modality_embed", "norm_moe_gen.weight"):
        assert key in gen
    for part in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k"):
        assert f"layers.1.self_attn.{part}.weight" in gen
    for key in ("embed_tokens.weight", "lm_head.weight", "norm.weight", "layers.0.self_attn.to_out.weight"):
        assert key in shapes and key not in gen
    assert tower_of("layers.0.self_attn.k_norm_und_for_gen.weight") == "und"
    assert tower_of("audio_proj_in.weight") == "gen"


@pytest.mark.parametrize("family", FAMILIES)
def test_each_tensor_names_existing_config_fields(family):
    config = preset(family, "tiny").transformer
    for key in transformer_shapes(config):
        assert all(hasattr(config, field) for field in config_fields_of(key))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES)
def test_configs_survive_a_round_trip(family, size):
    configs = preset(family, size)
    assert type(configs.transformer).from_dict(configs.transformer.to_dict()) == configs.transformer
    assert VaeConfig.from_dict(configs.vae.to_dict()) == configs.vae
    root = {
        "vision_config": configs.vision.to_dict(),
        "projector_hidden_size": configs.vision.projector_hidden_size,
    }
    width = configs.transformer.hidden_size
    assert VisionConfig.from_root(root, out_hidden_size=width) == configs.vision


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vision_config_without_its_defaults_is_the_published_one(family):
    full = preset(family, "full")
    kind = "cosmos3_edge" if family == "edge" else "cosmos3_omni"
    root = {"model_type": kind, "vision_config": {"patch_size": [16, 16]}}
    assert VisionConfig.from_root(root, out_hidden_size=full.transformer.hidden_size) == full.vision


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("is_residual", False),
        ("latents_std", [1.0]),
        ("in_channels", 3),
        ("temperal_downsample", [True]),
        ("latents_std", [0.0] * 48),
        ("z_dim", None),
        ("_class_name", "AutoencoderKL"),
    ],
)
def test_a_contradicting_vae_config_names_the_field(field, value):
    raw = {**preset("edge", "tiny").vae.to_dict(), field: value}
    with pytest.raises(CheckpointError, match=field):
        VaeConfig.from_dict(raw)


def test_an_unknown_family_or_size_offers_the_closest():
    with pytest.raises(UsageError, match="did you mean 'edge'"):
        preset("egde", "tiny")
    with pytest.raises(UsageError, match="did you mean 'small'"):
        preset("edge", "smal")
