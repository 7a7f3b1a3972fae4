"""Sample inputs of the reasoner's graphs: the end of a prompt over a half full buffer, and an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from motedge.checkpoint.vision_config import SIGLIP2
from motedge.export.reasoner_contracts import und
from motedge.export.reasoner_graphs import UND, VISION_ENCODER, vision_of
from motedge.runtime.engine import Array
from motedge.runtime.reasoner.patches import Grid
from motedge.runtime.reasoner.vision_positions import (
    qwen3_vl_positions,
    siglip2_positions,
    vision_frequencies,
    vision_rotary,
)

if TYPE_CHECKING:
    from motedge.export.samples import SampleScene

Sizes = dict[str, int]
Inputs = dict[str, Array]
# Slots of the buffer, those that hold tokens, and new tokens
_SLOTS, _HELD, _NEW = 32, 12, 16
# Of a frame: patches, a size that the table of positions does not have
_GRID = Grid(1, 4, 6)
_SEED = 20260323


def reasoner_inputs(scene: SampleScene, graph: str) -> tuple[Inputs, Sizes]:
    """Inputs of "und" or "vision_encoder", and their dynamic sizes."""
    return {UND.name: _und, VISION_ENCODER.name: _vision}[graph](scene)


def _und(scene: SampleScene) -> tuple[Inputs, Sizes]:
    vision, sizes = vision_of(scene.checkpoint), {"S": _NEW, "P": _SLOTS}
    contract = und(scene.checkpoint.config, vision)
    random = np.random.RandomState(_SEED)
    places = np.arange(_HELD, _HELD + _NEW, dtype=np.float32)
    cos, sin = scene.rotary().table(np.stack([places] * 3))
    inputs: Inputs = {"embeddings": scene.tables.embeddings(scene.tokens(_NEW)), "cos": cos, "sin": sin}
    for spec in contract.inputs:
        if spec.name in ("past_kv", "deepstack"):
            shape = spec.shape({**contract.sizes, **sizes})
            inputs[spec.name] = random.standard_normal(shape).astype(np.float32)
    inputs["past_length"] = np.array([_HELD], np.float32)
    return inputs, sizes


def _vision(scene: SampleScene) -> tuple[Inputs, Sizes]:
    vision = vision_of(scene.checkpoint)
    merge, learned = vision.spatial_merge_size, scene.tables.vision_positions()
    block, tokens = merge**2, _GRID.tokens_per_frame(merge)
    values = 3 * vision.temporal_patch_size * vision.patch_size**2
    pixels = np.random.RandomState(_SEED).randint(0, 256, (1, tokens, block, values))
    made: Inputs = {"patches": (pixels / np.float32(127.5) - 1).astype(np.float32)}
    if vision.model_type == SIGLIP2:
        made["positions"] = siglip2_positions(learned, _GRID, merge)
    else:
        made["positions"] = qwen3_vl_positions(learned, _GRID, merge)
        frequencies = vision_frequencies(vision.hidden_size // vision.num_attention_heads)
        made["cos"], made["sin"] = vision_rotary(frequencies, _GRID, merge)
    for name in made.keys() - {"patches"}:
        made[name] = made[name].reshape(tokens, block, -1)
    return made, {"G": tokens}
