"""Names of the transformer's tensors in NVIDIA's cosmos-framework (commit 5eee9ed), which trains the models.

Framework names have a prefix, `net.` or, for the averaged weights, `net_ema.`; here they stand without it. The tensors
and their shapes are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

PREFIXES = {"model": "net.", "ema": "net_ema."}
_TOP = {
    "embed_tokens": "language_model.model.embed_tokens",
    "norm": "language_model.model.norm",
    "norm_moe_gen": "language_model.model.norm_moe_gen",
    "lm_head": "language_model.lm_head",
    "proj_in": "vae2llm",
    "proj_out": "llm2vae",
    "time_embedder.linear_1": "time_embedder.mlp.0",
    "time_embedder.linear_2": "time_embedder.mlp.2",
    "action_proj_in": "action2llm",
    "action_proj_out": "llm2action",
    "audio_proj_in": "sound2llm",
    "audio_proj_out": "llm2sound",
    "audio_modality_embed": "sound_modality_embed",
}
_ATTENTION = {
    "to_q": "q_proj",
    "to_k": "k_proj",
    "to_v": "v_proj",
    "to_out": "o_proj",
    "add_q_proj": "q_proj_moe_gen",
    "add_k_proj": "k_proj_moe_gen",
    "add_v_proj": "v_proj_moe_gen",
    "to_add_out": "o_proj_moe_gen",
    "norm_q": "q_norm",
    "norm_k": "k_norm",
    "norm_added_q": "q_norm_moe_gen",
    "norm_added_k": "k_norm_moe_gen",
}
_LAYER = re.compile(r"(layers\.\d+)\.(.+)")


def framework_name(key: str) -> str:
    """The framework's name of a tensor or a module of the published layout.

    >>> framework_name("layers.3.self_attn.add_q_proj.weight")
    'language_model.model.layers.3.self_attn.q_proj_moe_gen.weight'
    """
    layer = _LAYER.fullmatch(key)
    if layer:
        parts = layer.group(2).split(".")
        if parts[0] == "self_attn":
            parts[1] = _ATTENTION.get(parts[1], parts[1])
        return f"language_model.model.{layer.group(1)}.{'.'.join(parts)}"
    for name, other in _TOP.items():
        if key == name or key.startswith(f"{name}."):
            return other + key[len(name) :]
    return key


def published_names(keys: Iterable[str]) -> dict[str, str]:
    """Framework name -> name in the published layout, of the given names of that layout."""
    return {framework_name(key): key for key in keys}
