"""Bicubic resizing with antialiasing of 8-bit images, bit for bit as the reference processors do it.

The reference is torch.nn.functional.interpolate(uint8, mode="bicubic", antialias=True), which torchvision and so
transformers' default processors call. It filters columns, then rows, with an 8-bit image between, in whole numbers:
weights are made in fp64 (Keys' kernel, a = -0.5, stretched when shrinking) and rounded to as many fractional bits as
let the largest fit 16-bit integers. Compared with torch 2.13.

transformers' other backend, pillow, keeps 22 bits and picks the order of the two passes by size: the same but for one
grey level on photographs, more on one-pixel checkers, whose overshoot is cut between the passes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motedge.errors import ContractError

Image = NDArray[np.uint8]

# More fractional bits than this the reference never takes
_BITS_MAX = 22
# Half the kernel's width, in source pixels when enlarging
_SUPPORT = 2.0


def resize_bicubic(image: Image, size: tuple[int, int]) -> Image:
    """Resizes images, uint8 [..., rows, columns, channels], to `size` = (rows, columns).

    Raises:
        ContractError: an empty image or target, or other than uint8.
    """
    if image.dtype != np.uint8 or image.ndim < 3 or min(*image.shape[-3:], *size) < 1:
        got = f"{image.dtype} {image.shape} to {size}"
        raise ContractError("can't resize", expected="uint8 [..., rows, columns, channels]", got=got)
    rows, columns = image.shape[-3:-1]
    if columns != size[1]:
        image = _filtered(image, -2, size[1])
    if rows != size[0]:
        image = _filtered(image, -3, size[0])
    return np.ascontiguousarray(image)


def _filtered(image: Image, axis: int, target: int) -> Image:
    """One axis resized."""
    first, weights = _taps(image.shape[axis], target)
    bits = _bits_of_16(float(weights.max()))
    fixed = _rounded(weights * (1 << bits))
    last = image.shape[axis] - 1
    # Counted from the end, so that leading axes don't matter
    trailing = (1,) * (-axis - 1)
    shape = list(image.shape)
    shape[axis] = target
    total = np.full(shape, 1 << (bits - 1), np.int32)
    for tap in range(fixed.shape[1]):
        # Beyond the last source pixel the weight is zero
        source = np.take(image, np.minimum(first + tap, last), axis=axis).astype(np.int32)
        total += source * fixed[:, tap].reshape(-1, *trailing)
    filtered: Image = np.clip(total >> bits, 0, 255).astype(np.uint8)
    return filtered


def _taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each target pixel: index of its first source pixel, and the weights from there on, fp64 [target, taps]."""
    scale = source / target
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    centre = scale * (np.arange(target) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.intp), 0)
    count = np.minimum((centre + support + 0.5).astype(np.intp), source) - first
    tap = np.arange(math.ceil(support) * 2 + 1)
    weights = _kernel((tap[None] + first[:, None] - centre[:, None] + 0.5) * (1.0 / stretch))
    weights[tap[None] >= count[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return first, weights[:, : int(count.max())]


def _kernel(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(position)
    near = (1.5 * x - 2.5) * x * x + 1
    far = -0.5 * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _bits_of_16(largest: float) -> int:
    """Fractional bits with which the largest weight is still below 2^15."""
    bits = 0
    while bits < _BITS_MAX and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    return bits


def _rounded(value: NDArray[np.float64]) -> NDArray[Any]:
    """Half away from zero, int32."""
    return np.trunc(value + np.copysign(0.5, value)).astype(np.int32)
