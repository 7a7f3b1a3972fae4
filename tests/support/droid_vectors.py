"""The frozen vectors of tests/data, and the images that they were made from."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parents[1] / "data"


@functools.lru_cache(maxsize=1)
def vectors() -> dict[str, Any]:
    """The JSON part: exact strings, checksums, sizes, seeds."""
    loaded: dict[str, Any] = json.loads((DATA / "droid_vectors.json").read_text(encoding="utf-8"))
    return loaded


@functools.lru_cache(maxsize=1)
def arrays() -> dict[str, NDArray[Any]]:
    """The array part, by the names that the JSON part gives."""
    with np.load(DATA / "droid_vectors.npz") as file:
        return {name: file[name] for name in file.files}


def make_image(kind: str, seed: int, size: list[int]) -> NDArray[np.uint8]:
    """The picture that a vector started from: "noise" or "smooth", uint8 [rows, columns, 3]."""
    rows, columns = size
    if kind == "noise":
        return np.random.RandomState(seed).randint(0, 256, (rows, columns, 3)).astype(np.uint8)
    shift = int(np.random.RandomState(seed).rand(6)[0] * 97)
    y, x = np.mgrid[0:rows, 0:columns]
    planes = [x * 255 // (columns - 1), y * 255 // (rows - 1), (x * 7 + y * 13 + shift) % 256]
    return np.stack(planes, -1).astype(np.uint8)


def checksum(array: NDArray[Any]) -> str:
    """sha256 of an array's bytes, C order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def assert_same_image(image: NDArray[np.uint8], expected: dict[str, Any]) -> None:
    """Byte equality; the stored corners first, because their difference says more than a checksum."""
    assert list(image.shape) == expected["shape"]
    assert image.dtype.name == expected["dtype"]
    side = 12
    corners = [image[:side, :side], image[:side, -side:], image[-side:, :side], image[-side:, -side:]]
    np.testing.assert_array_equal(np.stack(corners), arrays()[expected["corners"]])
    assert checksum(image) == expected["sha256"]
