"""Fitting a camera image into the size that the policy's client sends: scaled without distortion, black borders.

The DROID client (RoboLab at 0aef241, through openpi's resize_with_pad) scales with Pillow's antialiased bilinear filter
in 8-bit fixed point, columns first. The same integers come out of this, so that the robot needs no Pillow. (Pillow 13
scales rows first where it takes that for cheaper, odd sizes mostly; the rounding between the passes then falls
differently, by one grey level.)
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from motedge.errors import ObservationError
from motedge.runtime.policy.resize import Image

# Pillow's fixed point for 8-bit images: 32 bits less 8 of the pixel and 2 of headroom (Pillow, Resample.c)
PRECISION_BITS = 32 - 8 - 2


def letterbox(image: Image, size: tuple[int, int]) -> Image:
    """Scales uint8 [rows, columns, 3] to fit into `size` = (rows, columns), centred on black.

    Raises:
        ObservationError: the image is so narrow that nothing of it would be left.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == size:
        return image
    (top, left), inner = fit_inside((rows, columns), size)
    scaled = stretch(image, inner)
    canvas = np.zeros((*size, image.shape[2]), np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = scaled
    return canvas


def stretch(image: Image, size: tuple[int, int]) -> Image:
    """Resizes uint8 [rows, columns, 3] to `size` = (rows, columns) whatever its shape, as Pillow's BILINEAR does."""
    return _resample(_resample(image, size[1], axis=1), size[0], axis=0)


def fit_inside(image: tuple[int, int], size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where an image of `image` = (rows, columns) comes to lie in `size`: top and left, rows and columns.

    Raises:
        ObservationError: the image is so narrow that nothing of it would be left.
    """
    rows, columns = image
    ratio = max(columns / size[1], rows / size[0])
    inner = int(rows / ratio), int(columns / ratio)
    if min(inner) < 1:
        raise ObservationError(
            "a camera image is too narrow", expected=f"about {size[1]}:{size[0]}", got=f"{columns} x {rows} pixels"
        )
    return ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2), inner


def _resample(image: Image, target: int, axis: int) -> Image:
    """One pass of the separable filter, rounded to uint8, which Pillow does between its two passes too."""
    source = image.shape[axis]
    if source == target:
        return image
    index, weight = triangle_filter(source, target)
    shape = [1, 1, 1]
    shape[axis] = target
    result_shape = [target if number == axis else size for number, size in enumerate(image.shape)]
    total = np.full(result_shape, 1 << (PRECISION_BITS - 1), np.int32)
    for tap in range(index.shape[1]):
        total += image.take(index[:, tap], axis=axis) * weight[:, tap].reshape(shape)
    total >>= PRECISION_BITS
    return total.clip(0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def triangle_filter(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Triangle filter, widened when shrinking: pixel index and fixed-point weight of each tap, [target, taps]."""
    scale = source / target
    support = max(scale, 1.0)
    taps = math.ceil(support) * 2 + 1
    index = np.zeros((target, taps), np.intp)
    weight = np.zeros((target, taps), np.int32)
    for position in range(target):
        centre = (position + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), source)
        distance = np.abs((np.arange(first, last) - centre + 0.5) * (1.0 / support))
        triangle = np.maximum(1.0 - distance, 0.0)
        # Summed one after the other: pairwise summation would round differently
        triangle /= functools.reduce(float.__add__, triangle.tolist(), 0.0)
        index[position, : last - first] = np.arange(first, last)
        weight[position, : last - first] = (0.5 + triangle * (1 << PRECISION_BITS)).astype(np.int32)
    return index, weight
