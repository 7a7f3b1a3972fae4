"""Every tensor of transformer/ by name and shape, from its config: the one source for reading, making and inspecting.

Names are those of the published files. Linear weights are [out, in]; an embodiment's projection is one flattened row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Tuple

from motedge.checkpoint.config import ModelConfig

Shape = Tuple[int, ...]
TOWERS = ("und", "gen")
TIME_FREQUENCIES = 256  # width of the timestep sinusoid, the same in every family

# Top-level modules that belong to the generator; every other top-level tensor is the reasoner's.
_GEN_TOP_LEVEL = ("proj_in", "proj_out", "time_embedder", "action_", "audio_")
_GEN_MARKS = ("_moe_gen", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_")

# The fields of transformer/config.json that decide about a tensor's existence or shape, by a part of its name.
_FIELDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("k_norm_und_for_gen", ("use_und_k_norm_for_gen", "qk_norm_for_text", "head_dim")),
    ("norm_added_", ("head_dim",)),
    ("norm_q", ("qk_norm_for_text", "head_dim")),
    ("norm_k", ("qk_norm_for_text", "head_dim")),
    ("gate_proj", ("hidden_act", "intermediate_size", "hidden_size")),
    ("up_proj", ("intermediate_size", "hidden_size")),
    ("down_proj", ("intermediate_size", "hidden_size")),
    ("to_q", ("num_attention_heads", "head_dim", "hidden_size")),
    ("add_q_proj", ("num_attention_heads", "head_dim", "hidden_size")),
    ("to_out", ("num_attention_heads", "head_dim", "hidden_size")),
    ("to_add_out", ("num_attention_heads", "head_dim", "hidden_size")),
    ("to_k", ("num_key_value_heads", "head_dim", "hidden_size")),
    ("to_v", ("num_key_value_heads", "head_dim", "hidden_size")),
    ("add_k_proj", ("num_key_value_heads", "head_dim", "hidden_size")),
    ("add_v_proj", ("num_key_value_heads", "head_dim", "hidden_size")),
    ("embed_tokens", ("vocab_size", "hidden_size")),
    ("lm_head", ("vocab_size", "hidden_size")),
    ("action_", ("action_gen", "num_embodiment_domains", "action_dim", "hidden_size")),
    ("audio_", ("sound_gen", "sound_dim", "hidden_size")),
    ("proj_", ("patch_latent_dim", "hidden_size")),
)


def transformer_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Key -> shape of every tensor in transformer/: reasoner first, layer by layer, then the generator's heads."""
    hidden = config.hidden_size
    shapes: dict[str, Shape] = {"embed_tokens.weight": (config.vocab_size, hidden)}
    for layer in range(config.num_hidden_layers):
        prefix = f"layers.{layer}."
        shapes.update({prefix + name: shape for name, shape in layer_shapes(config).items()})
    shapes["norm.weight"] = (hidden,)
    shapes["lm_head.weight"] = (config.vocab_size, hidden)
    shapes["norm_moe_gen.weight"] = (hidden,)
    shapes.update(_vision_io_shapes(config))
    if config.action_gen:
        shapes.update(_action_io_shapes(config))
    if config.sound_gen:
        shapes.update(_sound_io_shapes(config))
    return shapes


def layer_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Name (without `layers.N.`) -> shape of one layer's tensors, both towers."""
    hidden, head = config.hidden_size, config.head_dim
    query, key = config.num_attention_heads * head, config.num_key_value_heads * head
    shapes: dict[str, Shape] = {}
    for suffix in ("", "_moe_gen"):
        shapes[f"input_layernorm{suffix}.weight"] = (hidden,)
        shapes[f"post_attention_layernorm{suffix}.weight"] = (hidden,)
    for names in (("to_q", "to_k", "to_v", "to_out"), ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")):
        widths = ((query, hidden), (key, hidden), (key, hidden), (hidden, query))
        shapes.update({f"self_attn.{name}.weight": shape for name, shape in zip(names, widths)})
    norms = ["norm_added_q", "norm_added_k"]
    if config.qk_norm_for_text:
        norms += ["norm_q", "norm_k"]
    if config.und_k_norm_for_gen:
        norms.append("k_norm_und_for_gen")
    shapes.update({f"self_attn.{name}.weight": (head,) for name in norms})
    for module in ("mlp", "mlp_moe_gen"):
        if config.gated:
            shapes[f"{module}.gate_proj.weight"] = (config.intermediate_size, hidden)
        shapes[f"{module}.up_proj.weight"] = (config.intermediate_size, hidden)
        shapes[f"{module}.down_proj.weight"] = (hidden, config.intermediate_size)
    return shapes


def tower_of(key: str) -> str:
    """Which tower a transformer/ tensor belongs to: "und" or "gen".

    `k_norm_und_for_gen` is the reasoner's: it makes the cached key, although only the generator reads that.
    """
    if key.startswith(_GEN_TOP_LEVEL) or any(mark in key for mark in _GEN_MARKS):
        return "gen"
    return "und"


def tower_counts(shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Parameters of each tower."""
    counts = dict.fromkeys(TOWERS, 0)
    for key, shape in shapes.items():
        counts[tower_of(key)] += math.prod(shape)
    return counts


def parameter_count(shapes: Iterable[Shape]) -> int:
    """Parameters in all."""
    return sum(math.prod(shape) for shape in shapes)


def config_fields_of(key: str) -> tuple[str, ...]:
    """The fields of transformer/config.json from which `key`'s existence and shape follow, for error messages."""
    for part, fields in _FIELDS:
        if part in key:
            return fields
    return ("hidden_size",)


def _vision_io_shapes(config: ModelConfig) -> dict[str, Shape]:
    hidden, patch = config.hidden_size, config.patch_latent_dim
    return {
        "proj_in.weight": (hidden, patch),
        "proj_in.bias": (hidden,),
        "proj_out.weight": (patch, hidden),
        "proj_out.bias": (patch,),
        "time_embedder.linear_1.weight": (hidden, TIME_FREQUENCIES),
        "time_embedder.linear_1.bias": (hidden,),
        "time_embedder.linear_2.weight": (hidden, hidden),
        "time_embedder.linear_2.bias": (hidden,),
    }


def _action_io_shapes(config: ModelConfig) -> dict[str, Shape]:
    hidden, width, domains = config.hidden_size, config.action_dim, config.num_embodiment_domains
    return {
        # Row d is embodiment d's matrix, flattened: [action_dim, H] going in, [H, action_dim] coming out.
        "action_proj_in.fc.weight": (domains, width * hidden),
        "action_proj_in.bias.weight": (domains, hidden),
        "action_proj_out.fc.weight": (domains, hidden * width),
        "action_proj_out.bias.weight": (domains, width),
        "action_modality_embed": (hidden,),
    }


def _sound_io_shapes(config: ModelConfig) -> dict[str, Shape]:
    hidden, width = config.hidden_size, config.sound_dim or 0
    return {
        "audio_proj_in.weight": (hidden, width),
        "audio_proj_in.bias": (hidden,),
        "audio_proj_out.weight": (width, hidden),
        "audio_proj_out.bias": (width,),
        "audio_modality_embed": (hidden,),
    }
