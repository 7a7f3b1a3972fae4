"""From the composed image to the VAE encoder's input: padded at the right and bottom, -1 to 1, channels first."""

from __future__ import annotations

from typing import Optional

import numpy as np

from motedge.errors import ContractError
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.resize import Image


def pad_canvas(image: Image, canvas: tuple[int, int]) -> Image:
    """Pads uint8 [rows, columns, 3] to `canvas` = (rows, columns) by reflection without repeating the edge.

    Where either padding is as large as the image itself, both sides repeat the edge pixel instead (cosmos-framework
    at 5eee9ed, reflection_pad_to_target). The padding is cropped from the latent, so its content matters little, yet
    the VAE's receptive field sees it.

    Raises:
        ContractError: the image is larger than the canvas.
    """
    rows, columns = canvas[0] - image.shape[0], canvas[1] - image.shape[1]
    if rows < 0 or columns < 0:
        raise ContractError(
            "the image does not fit the canvas", expected=f"at most {canvas} (rows, columns)", got=image.shape[:2]
        )
    padding = ((0, rows), (0, columns), (0, 0))
    if rows >= image.shape[0] or columns >= image.shape[1]:
        return np.pad(image, padding, mode="edge")
    return np.pad(image, padding, mode="reflect")


def normalise(canvas: Image, out: Optional[FloatArray] = None) -> FloatArray:
    """uint8 [Y, X, 3], 0 to 255 -> fp32 [1, 3, Y, X], -1 to 1: `value / 127.5 - 1` in fp32; into `out` if given."""
    planes = np.ascontiguousarray(canvas.transpose(2, 0, 1))[None]
    # uint8 can't be out of range; any mode but "raise" writes into `out` without a buffer
    return np.take(_LEVELS, planes, out=out, mode="clip")


def seen_image(canvas: FloatArray, content: tuple[int, int]) -> Image:
    """The image that `pad_canvas` and `normalise` made a canvas of, exactly: uint8 [*content, 3]."""
    rows, columns = content
    levels = np.rint((canvas[0, :, :rows, :columns] + np.float32(1)) * np.float32(127.5))
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))


# fp32 [256]: the normalised value of each grey level
_LEVELS: FloatArray = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
