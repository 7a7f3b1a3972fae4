"""Frames to patches: values scaled, in the order that the vision encoders were trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motedge.errors import ContractError
from motedge.runtime.engine import FloatArray
from motedge.runtime.reasoner.vision_settings import VisionSettings


@dataclass(frozen=True)
class Grid:
    """Patches of one image or clip."""

    # Temporal patches: 1 for an image
    frames: int
    # Patches, not yet merged
    rows: int
    columns: int

    @property
    def patches(self) -> int:
        """All patches."""
        return self.frames * self.rows * self.columns

    def tokens_per_frame(self, merge: int) -> int:
        """Tokens of each temporal patch."""
        return self.rows * self.columns // merge**2


def patchify(frames: NDArray[np.uint8], settings: VisionSettings) -> tuple[FloatArray, Grid]:
    """Patches of resized frames.

    Args:
        frames: uint8 [frames, rows, columns, 3], rows and columns whole tokens. Where a temporal patch is not full, the
            last frame is repeated.
        settings: the family's.

    Returns:
        fp32 [P, patch values], frame by frame, and in each the `merge` x `merge` patches of a token together; the grid.

    Raises:
        ContractError: sides that are not whole tokens.
    """
    if (
        frames.ndim != 4
        or frames.shape[0] < 1
        or frames.shape[3] != 3
        or any(n < 1 or n % settings.token_side for n in frames.shape[1:3])
    ):
        expected = f"uint8 [frames, rows, columns, 3] with sides that are multiples of {settings.token_side}"
        raise ContractError("can't cut into patches", expected=expected, got=frames.shape)
    missing = -frames.shape[0] % settings.temporal_patch
    values = _scaled(np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)]), settings)
    side, merge = settings.patch, settings.merge
    grid = Grid(values.shape[0] // settings.temporal_patch, values.shape[1] // side, values.shape[2] // side)
    blocks = values.reshape(
        grid.frames, settings.temporal_patch, grid.rows // merge, merge, side, grid.columns // merge, merge, side, 3
    )
    inner = (4, 7, 8, 1) if settings.channels_last else (8, 1, 4, 7)
    return blocks.transpose(0, 2, 5, 3, 6, *inner).reshape(grid.patches, settings.patch_values), grid


def block_major(values: NDArray[Any], merge: int) -> NDArray[Any]:
    """[rows, columns, ...] in the order of patches: [rows * columns, ...]."""
    rows, columns, *rest = values.shape
    blocks = values.reshape(rows // merge, merge, columns // merge, merge, *rest)
    return blocks.swapaxes(1, 2).reshape(rows * columns, *rest)


def _scaled(pixels: NDArray[np.uint8], settings: VisionSettings) -> FloatArray:
    """0..255 to (0..1 - mean) / std, with the factor 255 in mean and std as torchvision's backend has it."""
    mean = np.array(settings.mean, np.float32) * np.float32(255)
    std = np.array(settings.std, np.float32) * np.float32(255)
    values: FloatArray = (pixels.astype(np.float32) - mean) / std
    return values
