"""The reasoner's reference implementation, transformers' cosmos3_edge and cosmos3_omni, as an oracle in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

MERGE = 2


def load_reasoner(checkpoint: Path) -> tuple[Any, dict[str, Any]]:
    """The model in fp32, and what was missing or unexpected in the checkpoint."""
    model, info = AutoModelForImageTextToText.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    return model.eval(), info


def vision_inputs(model: Any, grid: tuple[int, int, int], seed: int) -> dict[str, np.ndarray]:
    """Inputs of vision_encoder for `grid` = (frames, patch rows, patch columns), positions and angles by the oracle."""
    visual, config = model.model.visual, model.config.vision_config
    frames, rows, columns = grid
    values = 3 * getattr(config, "temporal_patch_size", 1) * config.patch_size**2
    random = np.random.RandomState(seed)
    patches = random.uniform(-1, 1, (frames, rows * columns // MERGE**2, MERGE**2, values)).astype(np.float32)
    one = torch.tensor([[1, rows, columns]])
    with torch.no_grad():
        if hasattr(visual, "embeddings"):
            table = visual.embeddings.position_embedding.weight
            side = round(table.shape[0] ** 0.5)
            learned = table.reshape(side, side, -1)
            positions = visual.embeddings.resize_positional_embeddings(learned, one, MERGE)
            return {"patches": patches, "positions": _blocks(positions)}
        indices, weights = get_vision_interpolation_indices_and_weights(
            one, visual.num_grid_per_side, align_corners=True, spatial_merge_size=MERGE
        )
        positions = (visual.pos_embed(indices) * weights[:, :, None]).sum(1)
        cos, sin = visual.rotary_pos_emb(positions, get_vision_position_ids(one, MERGE))
    # Both halves of a head are rotated by the same angles
    half = cos.shape[-1] // 2
    tables = {"positions": positions, "cos": cos[:, :half], "sin": sin[:, :half]}
    return {"patches": patches, **{name: _blocks(value) for name, value in tables.items()}}


def visual_tokens(model: Any, grid: tuple[int, int, int], patches: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of vision_encoder by the oracle: tokens [B, G, H], and deepstack [layers, B, G, H] of Nano and Super."""
    rows = torch.from_numpy(patches).flatten(0, 2)
    with torch.no_grad():
        out = model.model.get_image_features(rows, torch.tensor([grid]), return_dict=True)
    shape = (*patches.shape[:2], -1)
    found = {"tokens": torch.cat(list(out.pooler_output)).reshape(shape).numpy()}
    if getattr(out, "deepstack_features", None) is not None:
        found["deepstack"] = np.stack([torch.cat(list(part)).reshape(shape).numpy() for part in out.deepstack_features])
    return found


def _blocks(value: Tensor) -> np.ndarray:
    return value.reshape(-1, MERGE**2, value.shape[-1]).numpy()
