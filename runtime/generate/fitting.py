"""Pictures of any size to the size that a bundle's graphs take: covered and cut, stretched, or shrunk to fit.

Each mode does it as its reference does: image2video covers and cuts (diffusers 0.42.1), video2video stretches
(diffusers), modes with actions shrink to fit and are padded (cosmos-framework at 5eee9ed; never enlarged).
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from motedge.errors import UsageError
from motedge.runtime.generate.buckets import Size
from motedge.runtime.policy.resize import Image
from motedge.runtime.reasoner.bicubic import resize_bicubic

# Pixels of a latent cell's side
CELL = 16


def cover(image: Image, size: Size) -> Image:
    """Scales uint8 [rows, columns, 3] until it covers `size`, antialiased and bilinear, and cuts the middle out."""
    rows, columns = image.shape[:2]
    scale = max(size[1] / columns, size[0] / rows)
    scaled = math.ceil(scale * rows), math.ceil(scale * columns)
    wide = _resampled(_resampled(image.astype(np.float32), 1, scaled[1]), 0, scaled[0])
    top, left = round((scaled[0] - size[0]) / 2), round((scaled[1] - size[1]) / 2)
    cut = wide[top : top + size[0], left : left + size[1]]
    return np.clip(np.rint(cut), 0, 255).astype(np.uint8)


def fitted_size(image: Size, canvas: Size) -> Size:
    """Rows and columns of an image after it was shrunk to fit a canvas; it is never enlarged."""
    scale = min(canvas[1] / image[1], canvas[0] / image[0], 1.0)
    return max(1, int(scale * image[0] + 0.5)), max(1, int(scale * image[1] + 0.5))


def fit(image: Image, canvas: Size, content: Size) -> Image:
    """Shrinks uint8 [rows, columns, 3] to fit `canvas`, antialiased and bicubic.

    Raises:
        UsageError: its latent would be of another size than that of `content`, which the graphs were made for.
    """
    size = fitted_size((image.shape[0], image.shape[1]), canvas)
    cells = tuple(side // CELL for side in size)
    if cells != tuple(side // CELL for side in content):
        raise UsageError(
            "the picture's shape is not the one that the bundle was exported for",
            expected=f"{content[1]}x{content[0]} or the like, before it is shrunk to fit {canvas[1]}x{canvas[0]}",
            got=f"{image.shape[1]}x{image.shape[0]}, which becomes {size[1]}x{size[0]}",
            fix=f"cut the picture to that shape, or export with a shape set with content = [{size[0]}, {size[1]}]",
        )
    return image if size == image.shape[:2] else resize_bicubic(image, size)


def _resampled(pixels: NDArray[np.float32], axis: int, target: int) -> NDArray[np.float32]:
    """One axis of [rows, columns, channels] by a triangle filter, widened when shrinking; in fp32."""
    if pixels.shape[axis] == target:
        return pixels
    matrix = _triangle(pixels.shape[axis], target)
    moved = np.tensordot(matrix, pixels, axes=(1, axis))
    return np.ascontiguousarray(np.moveaxis(moved, 0, axis))


@functools.lru_cache(maxsize=4)
def _triangle(source: int, target: int) -> NDArray[np.float32]:
    """Weights [target, source], each row summing up to 1."""
    scale = source / target
    support = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(source)[None] + 0.5 - centre[:, None]) / support
    weights = np.maximum(1.0 - distance, 0.0)
    made: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return made
