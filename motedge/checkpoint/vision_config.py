"""The reasoner's vision encoder: `vision_config` of the root config.json, in its two forms, as a frozen dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motedge.errors import CheckpointError

SIGLIP2 = "cosmos3_edge_vision"
QWEN3_VL = "qwen3_vl_vision"


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the vision encoder and its projector."""

    # SIGLIP2 (Edge) or QWEN3_VL (Nano, Super): the file's model_type
    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    # Entries of the learned position grid
    num_positions: int
    # Width of the projector's hidden layer
    projector_hidden_size: int
    # Width of the language model that the projector feeds
    out_hidden_size: int
    patch_size: int = 16
    # Frames per patch
    temporal_patch_size: int = 1
    # Patches per side that become one visual token
    spatial_merge_size: int = 2
    # Blocks whose outputs are also merged into the first language layers (Nano, Super)
    deepstack_indexes: tuple[int, ...] = ()

    @property
    def merged_size(self) -> int:
        """Width of one group of patches before the projector."""
        return self.hidden_size * self.spatial_merge_size**2

    @classmethod
    def from_root(cls, root: Mapping[str, Any], *, out_hidden_size: int) -> VisionConfig:
        """Parses the root config.json. The library that writes it leaves out what equals its class's defaults.

        Args:
            root: the whole file.
            out_hidden_size: the transformer's hidden size, used where the file does not repeat it.

        Raises:
            CheckpointError: no vision_config.
        """
        raw = root.get("vision_config")
        if not isinstance(raw, Mapping):
            raise CheckpointError(
                "the root config.json has no vision_config", fix="take the file that belongs to the checkpoint"
            )
        merge = _side(raw.get("spatial_merge_size", 2))
        width = raw.get("hidden_size", 1152)
        shared: dict[str, Any] = {
            "hidden_size": width,
            "intermediate_size": raw.get("intermediate_size", 4304),
            "patch_size": _side(raw.get("patch_size", 16)),
            "spatial_merge_size": merge,
        }
        if root.get("model_type") == "cosmos3_edge" or raw.get("model_type") == SIGLIP2:
            return cls(
                model_type=SIGLIP2,
                num_hidden_layers=raw.get("num_hidden_layers", 27),
                num_attention_heads=raw.get("num_attention_heads", 16),
                num_positions=raw.get("num_patches", 256),
                projector_hidden_size=root.get("projector_hidden_size", 11520),
                out_hidden_size=out_hidden_size,
                **shared,
            )
        return cls(
            model_type=QWEN3_VL,
            num_hidden_layers=raw.get("depth", 27),
            num_attention_heads=raw.get("num_heads", 16),
            num_positions=raw.get("num_position_embeddings", 2304),
            projector_hidden_size=width * merge**2,
            out_hidden_size=raw.get("out_hidden_size", out_hidden_size),
            temporal_patch_size=raw.get("temporal_patch_size", 2),
            deepstack_indexes=tuple(raw.get("deepstack_visual_indexes", (8, 16, 24))),
            **shared,
        )

    def to_dict(self) -> dict[str, Any]:
        """The `vision_config` block; `projector_hidden_size` stands beside it in Edge's root file."""
        shared = {
            "model_type": self.model_type,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "hidden_act": "gelu_pytorch_tanh",
            "patch_size": self.patch_size,
            "spatial_merge_size": self.spatial_merge_size,
        }
        if self.model_type == SIGLIP2:
            return {
                **shared,
                "num_hidden_layers": self.num_hidden_layers,
                "num_attention_heads": self.num_attention_heads,
                "num_channels": 3,
                "num_patches": self.num_positions,
                "layer_norm_eps": 1e-6,
            }
        return {
            **shared,
            "depth": self.num_hidden_layers,
            "num_heads": self.num_attention_heads,
            "in_channels": 3,
            "num_position_embeddings": self.num_positions,
            "out_hidden_size": self.out_hidden_size,
            "temporal_patch_size": self.temporal_patch_size,
            "deepstack_visual_indexes": list(self.deepstack_indexes),
        }


def _side(value: Any) -> int:
    """A square's side, which the file may write as one number or as two."""
    return int(value[0] if isinstance(value, (list, tuple)) else value)
