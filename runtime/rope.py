"""Positions and rotary tables of prompt and generator tokens: interleaved three-axis mRoPE, made on the host in fp32.

Positions lie beyond 15,000, where one fp32 ulp of an angle is 1e-3 rad. The frequencies therefore come from the
bundle's table (recomputed in numpy, some differ by an ulp), and the product is fp32, exactly as in the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from motedge.errors import BundleError
from motedge.runtime.engine import FloatArray

# Pixel frames per latent frame of the Wan 2.2 VAE
TEMPORAL_COMPRESSION = 4


@dataclass(frozen=True)
class GenLayout:
    """What the positions of the generator's tokens depend on. Hashable: the key under which tables are kept."""

    # Prompt tokens, which shift all generated positions
    und_len: int
    # Latent frames, rows, columns (cropped)
    frames: int
    rows: int
    columns: int
    # Action rows
    actions: int
    # Hz
    fps: float
    fps_action: float
    # 0: row 0 is the current state; 1: row 0 leads to frame 1
    action_start_offset: int = 0
    # Sound latents
    sound: int = 0


class RotaryTable:
    """Makes cos and sin from the bundle's frequencies and the model's configuration."""

    def __init__(self, inv_freq: FloatArray, model_config: Mapping[str, Any]) -> None:
        self._inv_freq = np.asarray(inv_freq, dtype=np.float32)
        self._margin = int(model_config.get("unified_3d_mrope_temporal_modality_margin", 15000))
        self._base_fps = float(model_config.get("base_fps", 24))
        self._sound_hz = float(model_config.get("sound_latent_fps") or 25.0)
        self._modulated = bool(model_config.get("enable_fps_modulation", True))
        self._patch = int(model_config.get("latent_patch_size", 2))
        if not model_config.get("unified_3d_mrope_reset_spatial_ids", True):
            raise BundleError(
                "the model counts rows and columns from the prompt's end",
                expected="unified_3d_mrope_reset_spatial_ids true, as in every Cosmos 3 release",
            )
        self._axis = _axis_of_slot(_axes(model_config), self._inv_freq.size)

    def text(self, count: int) -> tuple[FloatArray, FloatArray]:
        """cos and sin of prompt tokens 0 .. count - 1, fp32 [count, R] each."""
        row = np.arange(count, dtype=np.float32)
        return self.table(np.stack([row, row, row]))

    def generator(self, layout: GenLayout) -> tuple[FloatArray, FloatArray]:
        """cos and sin of the generator's tokens, vision, action, sound, fp32 [N, R] each."""
        return self.table(self.generator_positions(layout))

    def generator_positions(self, layout: GenLayout) -> FloatArray:
        """Positions (time, row, column), fp32 [3, N]: of vision tokens (t-major, row, column), action rows, sound."""
        origin = layout.und_len + self._margin
        rows, columns = -(-layout.rows // self._patch), -(-layout.columns // self._patch)
        vision = np.empty((3, layout.frames, rows, columns), np.float32)
        vision[0] = self._time(layout.frames, 0, layout.fps / TEMPORAL_COMPRESSION, origin)[:, None, None]
        vision[1] = np.arange(rows, dtype=np.float32)[None, :, None]
        vision[2] = np.arange(columns, dtype=np.float32)[None, None, :]
        action = np.zeros((3, layout.actions), np.float32)
        action[0] = self._time(layout.actions, layout.action_start_offset, layout.fps_action, origin)
        sound = np.zeros((3, layout.sound), np.float32)
        # One token a latent: its rate is held against the base rate of frames, not of latent frames
        sound[0] = self._time(layout.sound, 0, self._sound_hz, origin, self._base_fps)
        return np.concatenate([vision.reshape(3, -1), action, sound], axis=1)

    def table(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """cos and sin, fp32 [N, R] each, of positions fp32 [3, N]."""
        angle = np.multiply(positions.T[:, self._axis], self._inv_freq, order="C")
        return np.cos(angle), np.sin(angle)

    def _time(self, count: int, start: int, rate_hz: float, origin: int, base_hz: Optional[float] = None) -> FloatArray:
        """Temporal positions: `origin + (i + start) / rate * base rate`; a single item is never modulated."""
        index = np.arange(count, dtype=np.float32) + np.float32(start)
        base_hz = self._base_fps / TEMPORAL_COMPRESSION if base_hz is None else base_hz
        if self._modulated and count > 1:
            index = index / np.float32(rate_hz) * np.float32(base_hz)
        return (index + np.float32(origin)).astype(np.float32)


def _axes(model_config: Mapping[str, Any]) -> tuple[int, int, int]:
    """How many frequencies time, row and column have, under either of the file's two names."""
    axes = model_config.get("rope_axes_dim") or (model_config.get("rope_scaling") or {}).get("mrope_section")
    time, row, column = axes or (24, 20, 20)
    return int(time), int(row), int(column)


def _axis_of_slot(axes: tuple[int, int, int], slots: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Which axis each frequency slot belongs to: T H W T H W ..., time for what is left over."""
    if sum(axes) != slots:
        raise BundleError("the rotary table does not fit the model", expected=f"{sum(axes)} entries", got=slots)
    axis = np.zeros(slots, np.intp)
    for number in (1, 2):
        axis[number : 3 * axes[number] : 3] = number
    return axis
