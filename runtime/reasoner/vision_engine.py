"""The vision encoder over an engine of graph vision_encoder; what it knows of places is made once a grid."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from motedge.errors import ObservationError
from motedge.runtime.engine import Engine, FloatArray
from motedge.runtime.reasoner.patches import Grid
from motedge.runtime.reasoner.ports import VisualTokens
from motedge.runtime.reasoner.vision_positions import (
    qwen3_vl_positions,
    siglip2_positions,
    vision_frequencies,
    vision_rotary,
)
from motedge.runtime.reasoner.vision_settings import VisionSettings
from motedge.runtime.reasoner.visual_input import VisualInput

GRAPH = "vision_encoder"
# Grids whose places are kept: cameras have few sizes
_GRIDS = 8


class EngineVision:
    """See `motedge.runtime.reasoner.ports.VisionTower`. The engine stays the caller's."""

    def __init__(self, engine: Engine, learned: FloatArray, settings: VisionSettings) -> None:
        """Takes the engine; `learned`: the table of positions, fp32 [entries, E]."""
        self._engine, self._learned, self._merge, self._side = engine, learned, settings.merge, settings.token_side
        names = {spec.name for spec in engine.contract.inputs}
        # Rotary angles are Qwen3-VL's
        self._frequencies = vision_frequencies(2 * engine.contract.sizes["R"]) if "cos" in names else None
        self._has_deepstack = any(spec.name == "deepstack" for spec in engine.contract.outputs)
        self._places = functools.lru_cache(maxsize=_GRIDS)(self._make_places)

    def encode(self, visual: VisualInput) -> VisualTokens:
        """See `VisionTower.encode`.

        Raises:
            ObservationError: an image of more tokens than the graph takes.
        """
        count, block = visual.grid.tokens_per_frame(self._merge), self._merge**2
        least, _, most = self._engine.contract.profile["G"]
        if not least <= count <= most:
            side = self._side
            raise ObservationError(
                "an image or a frame is too large for the vision encoder",
                expected=f"{least} to {most} visual tokens of {side} x {side} pixels",
                got=f"{count}",
                fix="a smaller image",
            )
        frames = visual.patches.reshape(visual.grid.frames, count, block, -1)
        places = self._places(Grid(1, visual.grid.rows, visual.grid.columns))
        parts = [self._forward(frame[None], places) for frame in frames]
        tokens = np.concatenate([part.tokens for part in parts])
        layers = [part.deepstack for part in parts if part.deepstack is not None]
        return VisualTokens(tokens, np.concatenate(layers, axis=1) if layers else None)

    def _forward(self, frame: FloatArray, places: Mapping[str, FloatArray]) -> VisualTokens:
        """Tokens of a frame [1, G, block, values]."""
        context = self._engine.context({"G": frame.shape[1]})
        for name, value in {"patches": frame, **places}.items():
            context.set_input(name, value)
        context.run()
        tokens = context.output("tokens")
        width = tokens.shape[-1]
        if not self._has_deepstack:
            return VisualTokens(tokens.reshape(-1, width).copy())
        layers = context.output("deepstack")
        return VisualTokens(tokens.reshape(-1, width).copy(), layers.reshape(len(layers), -1, width).copy())

    def _make_places(self, grid: Grid) -> dict[str, FloatArray]:
        """Positions [G, block, E] and, where the graph takes them, cos and sin [G, block, R]."""
        if self._frequencies is None:
            made = {"positions": siglip2_positions(self._learned, grid, self._merge)}
        else:
            made = {"positions": qwen3_vl_positions(self._learned, grid, self._merge)}
            made["cos"], made["sin"] = vision_rotary(self._frequencies, grid, self._merge)
        shape = (grid.tokens_per_frame(self._merge), self._merge**2, -1)
        return {name: np.ascontiguousarray(value.reshape(shape)) for name, value in made.items()}
