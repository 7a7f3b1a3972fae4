"""Bilinear resizing without antialiasing, as the policy server does it: torch's arithmetic, repeated in numpy.

cosmos-framework at 5eee9ed resizes with `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` and
truncates to uint8, so an ulp decides between two grey values. torch has two kernels for this: with several threads it
interpolates columns, then rows, each as one fused multiply-add; that order is repeated here bit for bit. (With one
thread, or for images below about 100 x 100, torch adds the four products in another order: at most one grey level
apart, in up to 2e-4 of all values.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from motedge.errors import ContractError
from motedge.runtime.engine import FloatArray

Image = NDArray[np.uint8]


def resize_bilinear(image: Image, size: tuple[int, int]) -> Image:
    """Resizes an image, uint8 [rows, columns, channels], to `size` = (rows, columns); truncates to uint8.

    Raises:
        ContractError: an empty image or target.
    """
    if image.ndim != 3 or min(*image.shape, *size) < 1:
        raise ContractError("can't resize", expected="uint8 [rows, columns, channels]", got=f"{image.shape} to {size}")
    rows, columns = image.shape[:2]
    if (rows, columns) == size:
        return image.copy()
    if (rows, columns) == (2 * size[0], 2 * size[1]):
        return _halve(image)
    top, bottom, row_weights = bilinear_taps(rows, size[0])
    left, right, column_weights = bilinear_taps(columns, size[1])
    pixels = image.astype(np.float32)
    # [rows, size[1], channels]
    narrow = _blend(pixels[:, left], pixels[:, right], column_weights[None, :, None])
    blended = _blend(narrow[top], narrow[bottom], row_weights[:, None, None])
    return blended.astype(np.uint8)


def _halve(image: Image) -> Image:
    """Exactly half of both sides: all weights are 1/4 and the sums exact, so whole numbers give the same bytes."""
    wide = image.astype(np.uint16)
    rows = wide[0::2] + wide[1::2]
    return ((rows[:, 0::2] + rows[:, 1::2]) >> 2).astype(np.uint8)


def bilinear_taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    """For each target position: index of the pixel before and after it, and the weight of the one after, fp32."""
    scale = np.float32(source) / np.float32(target)
    centre = np.arange(target, dtype=np.float32) + np.float32(0.5)
    position = np.maximum(_fused_multiply_add(scale, centre, np.float32(-0.5)), np.float32(0))
    before = np.minimum(position.astype(np.intp), source - 1)
    weight = np.clip(position - before.astype(np.float32), np.float32(0), np.float32(1))
    return before, np.minimum(before + 1, source - 1), weight


def _blend(before: FloatArray, after: FloatArray, weight: FloatArray) -> FloatArray:
    return _fused_multiply_add(before, np.float32(1) - weight, after * weight)


def _fused_multiply_add(a: Any, b: Any, c: Any) -> FloatArray:
    """`a * b + c` of fp32 values with a single rounding: the product of two is exact in fp64."""
    wide: NDArray[np.float64] = np.multiply(a, b, dtype=np.float64)
    wide += c
    return wide.astype(np.float32)
