"""What the vision encoders know of a patch's place: learned positions resized to its grid, and rotary angles.

Made on the host, once a grid: antialiased resizing is no ONNX operator, and few grids occur.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motedge.errors import BundleError
from motedge.runtime.engine import FloatArray
from motedge.runtime.reasoner.patches import Grid, block_major

# Of Qwen3-VL's vision encoder, whose angles are the same for rows and columns
_THETA = 10_000.0


def siglip2_positions(learned: FloatArray, grid: Grid, merge: int) -> FloatArray:
    """Edge: the learned square grid resized bilinearly with antialiasing, corners not aligned.

    Args:
        learned: fp32 [entries, W], row by row; entries is a square number.
        grid: of the image or clip.
        merge: patches per side of a token.

    Returns:
        fp32 [rows * columns, W], in the order of patches; those of every frame.

    Raises:
        BundleError: entries that make no square.
    """
    side = _side(learned)
    return _resized(learned, _antialiased(side, grid.rows), _antialiased(side, grid.columns), grid, merge)


def qwen3_vl_positions(learned: FloatArray, grid: Grid, merge: int) -> FloatArray:
    """Nano and Super: the learned square grid interpolated bilinearly, corners aligned. As `siglip2_positions`."""
    side = _side(learned)
    return _resized(learned, _aligned(side, grid.rows), _aligned(side, grid.columns), grid, merge)


def vision_frequencies(head_dim: int) -> FloatArray:
    """Angle per row or column, fp32 [head_dim / 4]."""
    half = head_dim // 2
    exponent = np.arange(0, half, 2, dtype=np.float32) / np.float32(half)
    return _fp32(np.float32(1) / np.power(np.float32(_THETA), exponent))


def vision_rotary(frequencies: FloatArray, grid: Grid, merge: int) -> tuple[FloatArray, FloatArray]:
    """cos and sin of Qwen3-VL's two-axis rotary embedding: rows' angles, then columns'.

    fp32 [rows * columns, head_dim / 2] each; those of every frame.
    """
    rows, columns = np.meshgrid(np.arange(grid.rows), np.arange(grid.columns), indexing="ij")
    place = block_major(np.stack([rows, columns], axis=-1).astype(np.float32), merge)
    angle = (place[:, :, None] * frequencies).reshape(len(place), -1)
    return np.cos(angle), np.sin(angle)


def _side(learned: FloatArray) -> int:
    side = math.isqrt(len(learned))
    if side * side != len(learned):
        raise BundleError(
            "the learned positions make no square", expected="a square number of entries", got=len(learned)
        )
    return side


def _resized(learned: FloatArray, rows: FloatArray, columns: FloatArray, grid: Grid, merge: int) -> FloatArray:
    """Weights [target, side] of both axes applied."""
    side, width = rows.shape[1], learned.shape[1]
    table = np.asarray(learned, np.float32).reshape(side, side * width)
    tall = (rows @ table).reshape(grid.rows, side, width)
    full = np.einsum("cs,rsw->rcw", columns, tall)
    return block_major(full, merge)


def _antialiased(source: int, target: int) -> FloatArray:
    """The triangle kernel, stretched when shrinking: fp32 [target, source], in fp32 throughout as torch has it."""
    scale = np.float32(source) / np.float32(target)
    half = np.float32(0.5)
    centre = scale * (np.arange(target, dtype=np.float32) + half)
    distance = np.abs(np.arange(source, dtype=np.float32)[None] - centre[:, None] + half)
    weights = np.maximum(np.float32(1) - distance * (np.float32(1) / max(scale, np.float32(1))), np.float32(0))
    return _fp32(weights / weights.sum(axis=1, keepdims=True))


def _aligned(source: int, target: int) -> FloatArray:
    """Between the two nearest entries, the outermost on the outermost: fp32 [target, source]."""
    place = np.arange(target, dtype=np.float32) * np.float32(source - 1) / np.float32(max(target - 1, 1))
    return _fp32(np.maximum(1 - np.abs(place[:, None] - np.arange(source, dtype=np.float32)[None]), 0))


def _fp32(value: NDArray[Any]) -> FloatArray:
    single: FloatArray = value.astype(np.float32)
    return single
