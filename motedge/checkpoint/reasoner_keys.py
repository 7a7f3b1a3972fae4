"""Names of Edge's reasoner as it is trained on its own: a Nemotron decoder, whose layers are a mixer each.

Layer N of the published layout is two of them: attention at 2N, the feed-forward part at 2N + 1. The tensors and their
shapes are the same. The generator has no names there, nor has `k_norm_und_for_gen`, which only the generator reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Optional

PREFIX = "model.language_model."
# What tells these names from others
PROBE = "layers.0.mixer.q_proj.weight"
_TOP = {"embed_tokens.weight": "embeddings.weight", "norm.weight": "norm_f.weight"}
_ATTENTION = {
    "self_attn.to_q": "mixer.q_proj",
    "self_attn.to_k": "mixer.k_proj",
    "self_attn.to_v": "mixer.v_proj",
    "self_attn.to_out": "mixer.o_proj",
    "input_layernorm": "norm",
}
_FEED_FORWARD = {
    "mlp.up_proj": "mixer.up_proj",
    "mlp.down_proj": "mixer.down_proj",
    "post_attention_layernorm": "norm",
}
_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.weight")


def reasoner_name(key: str) -> Optional[str]:
    """The reasoner's name of a tensor of the published layout, without its prefix; None for the generator's.

    `lm_head.weight` has the same name, and no prefix.

    >>> reasoner_name("layers.3.mlp.up_proj.weight")
    'layers.7.mixer.up_proj.weight'
    """
    layer = _LAYER.fullmatch(key)
    if layer is None:
        return _TOP.get(key)
    index, module = int(layer.group(1)), layer.group(2)
    if module in _ATTENTION:
        return f"layers.{2 * index}.{_ATTENTION[module]}.weight"
    if module in _FEED_FORWARD:
        return f"layers.{2 * index + 1}.{_FEED_FORWARD[module]}.weight"
    return None


def published_names(keys: Iterable[str]) -> dict[str, str]:
    """Reasoner's name, without prefix -> name in the published layout, of those that have one."""
    return {name: key for key in keys if (name := reasoner_name(key)) is not None}
