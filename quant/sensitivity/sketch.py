"""A deviation of millions of values in a few kilobytes, such that inner products stay.

Short vectors are kept whole. Of longer ones each value is added, with a fixed random sign, to one of a fixed number of
buckets (a count sketch): an inner product of two such sketches is that of the vectors, give or take |a| |b| / 64.
"""

from __future__ import annotations

import base64
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 4096
Vector = NDArray[np.float64]


def sketch(values: Vector) -> Vector:
    """[n] -> [min(n, SIZE)]; the same places and signs for the same n everywhere."""
    if values.size <= SIZE:
        return values
    buckets, signs = _places(values.size)
    return np.bincount(buckets, weights=values * signs, minlength=SIZE).astype(np.float64)


def pack(values: Vector) -> dict[str, Any]:
    """JSON form: fp16 of the values over their largest, in base64."""
    largest = float(np.abs(values).max(initial=0.0))
    scaled = (values / (largest or 1.0)).astype("<f2")
    return {"scale": largest, "fp16": base64.b64encode(scaled.tobytes()).decode("ascii")}


def unpack(stored: dict[str, Any]) -> Vector:
    """What `pack` was given, rounded to fp16."""
    return np.frombuffer(base64.b64decode(stored["fp16"]), "<f2").astype(np.float64) * float(stored["scale"])


@functools.lru_cache(maxsize=2)
def _places(count: int) -> tuple[NDArray[np.int64], Vector]:
    random = np.random.RandomState(count % 2**32)
    return random.randint(0, SIZE, count), random.choice((-1.0, 1.0), count)
