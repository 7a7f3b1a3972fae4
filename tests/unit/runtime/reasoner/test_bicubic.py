"""Bicubic resizing, bit for bit against torch, within a grey level of pillow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import ContractError
from motedge.runtime.reasoner.bicubic import resize_bicubic

SIZES = [
    ((37, 53), (64, 96)),
    ((480, 640), (224, 320)),
    ((270, 480), (256, 480)),
    ((5, 300), (32, 32)),
    ((64, 64), (64, 32)),
]
side, wide = st.integers(1, 90), st.integers(2, 90)


def _image(seed: int, rows: int, columns: int) -> np.ndarray:
    random = np.random.RandomState(seed)
    # Half noise, half 0 and 255, which overshoot
    noise = random.randint(0, 256, (rows, columns, 3))
    return np.where(random.rand(rows, columns, 1) < 0.5, noise, 255 * (noise > 127)).astype(np.uint8)


def _torch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    resized = torch.nn.functional.interpolate(tensor, size, mode="bicubic", antialias=True, align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_same_bytes(source: tuple[int, int], target: tuple[int, int]) -> None:
    image = _image(1, *source)
    assert np.array_equal(resize_bicubic(image, target), _torch(image, target))


# torch 2.13 itself fails on images one pixel wide
@given(source=st.tuples(side, wide), target=st.tuples(side, wide), seed=st.integers(0, 999))
@settings(max_examples=80, deadline=None)
def test_same_bytes_for_any_size(source: tuple[int, int], target: tuple[int, int], seed: int) -> None:
    image = _image(seed, *source)
    assert np.array_equal(resize_bicubic(image, target), _torch(image, target))


def test_one_pixel_wide() -> None:
    column = np.arange(0, 250, 10, dtype=np.uint8).repeat(3).reshape(25, 1, 3)
    assert np.array_equal(resize_bicubic(column, (25, 4)), column.repeat(4, axis=1))


def test_pillow_is_one_grey_level_away_at_most() -> None:
    pillow = pytest.importorskip("PIL.Image")
    x, y = np.meshgrid(np.linspace(0, 9, 150), np.linspace(0, 7, 110))
    image = (127 + 120 * np.stack([np.sin(x * y), np.cos(x), np.sin(y)], axis=-1)).astype(np.uint8)
    for rows, columns in [(64, 96), (192, 256), (96, 128)]:
        theirs = np.asarray(pillow.fromarray(image).resize((columns, rows), pillow.Resampling.BICUBIC))
        assert np.abs(resize_bicubic(image, (rows, columns)).astype(int) - theirs).max() <= 1


def test_frames_are_resized_alike() -> None:
    clip = np.stack([_image(seed, 40, 50) for seed in range(3)])
    one_by_one = [resize_bicubic(frame, (32, 64)) for frame in clip]
    assert np.array_equal(resize_bicubic(clip, (32, 64)), np.stack(one_by_one))


def test_bad_input() -> None:
    with pytest.raises(ContractError, match="can't resize"):
        resize_bicubic(np.zeros((4, 4, 3), np.float32), (8, 8))
    with pytest.raises(ContractError, match="can't resize"):
        resize_bicubic(np.zeros((4, 0, 3), np.uint8), (8, 8))
