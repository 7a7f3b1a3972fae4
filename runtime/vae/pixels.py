"""Frames as cameras and video files have them, uint8 [F, rows, columns, 3], to and from the VAE's [3, F, Y, X]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from motedge.errors import ContractError
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.resize import Image

VAE_STRIDE = 16  # pixels per latent cell


def to_uint8(frames: FloatArray) -> NDArray[np.uint8]:
    """fp32 [3, F, Y, X] in [-1, 1] -> uint8 [F, Y, X, 3], rounded half to even as diffusers' image processor does."""
    levels = np.multiply(frames, np.float32(0.5), dtype=np.float32)
    levels += np.float32(0.5)
    np.clip(levels, 0, 1, out=levels)
    levels *= np.float32(255)
    np.rint(levels, out=levels)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 3, 0))


def from_uint8(frames: Sequence[Image], canvas: tuple[int, int], grid: tuple[int, int], out: FloatArray) -> None:
    """Pads each frame to the canvas by reflection and brings it to [-1, 1].

    Args:
        frames: uint8 [rows, columns, 3] each.
        canvas: rows and columns that the encoder takes.
        grid: latent rows and columns that it returns.
        out: fp32 [3, F, Y, X], to be filled.

    Raises:
        ContractError: a frame of another type, or of a size whose latent is not `grid`.
    """
    for index, frame in enumerate(frames):
        _check_frame(frame, canvas, grid)
        out[:, index] = normalise(pad_canvas(frame, canvas))[0]


def _check_frame(frame: Image, canvas: tuple[int, int], grid: tuple[int, int]) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ContractError(
            "this is no frame of a video", expected="uint8 [rows, columns, 3]", got=f"{frame.dtype} {frame.shape}"
        )
    cells = (frame.shape[0] // VAE_STRIDE, frame.shape[1] // VAE_STRIDE)
    if cells != grid:
        lowest = tuple(cell * VAE_STRIDE for cell in grid)
        highest = tuple(min(low + VAE_STRIDE - 1, size) for low, size in zip(lowest, canvas))
        raise ContractError(
            "a frame of another size than the encoder was exported for",
            expected=f"{lowest} to {highest} (rows, columns)",
            got=frame.shape[:2],
            fix="resize the video, or export with a shape set of its size",
        )
