"""The model's configuration: transformer/config.json as a frozen dataclass, and what follows from it.

Field meanings and values per family: docs/concepts.md. Published configurations, parsed unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from motedge.errors import CheckpointError

FAMILIES = ("edge", "nano", "super")
PATCH = 2  # latent cells per token side; the only value that exists


@dataclass(frozen=True)
class ModelConfig:
    """One transformer/config.json. Field names are the file's own."""

    # Width of the residual stream, H
    hidden_size: int
    # Width of the feed-forward layers, I
    intermediate_size: int
    # Layers of each tower, L
    num_hidden_layers: int
    # Query heads; their total width may differ from hidden_size (Super)
    num_attention_heads: int
    # Key and value heads, K
    num_key_value_heads: int
    vocab_size: int
    # "relu2": squared ReLU without a gate, and Nemotron norms (Edge); "silu": SwiGLU and Qwen norms
    hidden_act: str
    rms_norm_eps: float
    rope_theta: float
    # RMSNorm on the reasoner's own q and k
    qk_norm_for_text: bool
    # Extra RMSNorm on the reasoner's raw k for the generator only (Edge)
    use_und_k_norm_for_gen: bool
    head_dim: int = 128
    latent_channel: int = 48
    latent_patch_size: int = PATCH
    patch_latent_dim: int = 192
    # Width of one action row, zero-padded beyond the embodiment's own
    action_dim: int = 64
    action_gen: bool = True
    num_embodiment_domains: int = 32
    sound_gen: bool = False
    sound_dim: int | None = None
    sound_latent_fps: float = 25.0
    timestep_scale: float = 0.001
    base_fps: int = 24
    enable_fps_modulation: bool = True
    unified_3d_mrope_reset_spatial_ids: bool = True
    # Distance in temporal position between the last prompt token and the first generated one
    unified_3d_mrope_temporal_modality_margin: int = 15000
    # Rotary frequencies given to time, row and column
    rope_axes_dim: tuple[int, int, int] = (24, 20, 20)
    attention_bias: bool = False
    # Keys of the file that motedge does not interpret, kept so that a file survives a round trip
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
            _require_positive(name, getattr(self, name))
        _require_positive("num_key_value_heads", self.num_key_value_heads)
        if self.num_attention_heads % self.num_key_value_heads:
            raise CheckpointError(
                "the query heads can't be shared out over the key heads",
                expected=f"num_attention_heads a multiple of num_key_value_heads={self.num_key_value_heads}",
                got=self.num_attention_heads,
                fix="mend transformer/config.json",
            )
        _require_equal("hidden_act", self.hidden_act, ("relu2", "silu"))
        _require_equal("latent_patch_size", self.latent_patch_size, (PATCH,))
        _require_equal("patch_latent_dim", self.patch_latent_dim, (self.latent_channel * PATCH * PATCH,))
        _require_equal("attention_bias", self.attention_bias, (False,))
        _require_equal("sum of rope_axes_dim", sum(self.rope_axes_dim), (self.head_dim // 2,))

    @property
    def und_k_norm_for_gen(self) -> bool:
        """Whether the generator sees another key of the reasoner than the reasoner itself (Edge)."""
        return self.use_und_k_norm_for_gen and not self.qk_norm_for_text

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layers have a gate projection (SwiGLU)."""
        return self.hidden_act == "silu"

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Parses a transformer/config.json.

        Raises:
            CheckpointError: a required field is missing, or a value is one that no Cosmos 3 model has.
        """
        known = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        values = {key: value for key, value in raw.items() if key in known and value is not None}
        if "rope_axes_dim" not in values:
            scaling = raw.get("rope_scaling") or {}
            values["rope_axes_dim"] = scaling.get("mrope_section", (24, 20, 20))
        values["rope_axes_dim"] = tuple(values["rope_axes_dim"])
        required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING} - {"extra"}
        missing = sorted(required - values.keys())
        if missing:
            raise CheckpointError(
                "transformer/config.json lacks required fields",
                expected=", ".join(sorted(required)),
                got=f"no {', '.join(missing)}",
                fix="take the file that belongs to the checkpoint",
            )
        return cls(**values, extra={key: raw[key] for key in raw if key not in known})

    def to_dict(self) -> dict[str, Any]:
        """The inverse of `from_dict`, with the uninterpreted keys at the end."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
        values["rope_axes_dim"] = list(self.rope_axes_dim)
        return {**values, **self.extra}


def _require_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or value <= 0:
        raise CheckpointError(
            f"transformer/config.json: {name} is not a positive whole number", got=repr(value), fix="mend the file"
        )


def _require_equal(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise CheckpointError(
            f"transformer/config.json: no Cosmos 3 model has this {name}",
            expected=" or ".join(repr(a) for a in allowed),
            got=repr(value),
            fix="take the file that belongs to the checkpoint",
        )
