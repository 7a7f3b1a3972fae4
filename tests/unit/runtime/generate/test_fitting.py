"""Pictures to a bundle's size, against torch and Pillow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from motedge.errors import UsageError
from motedge.runtime.generate.fitting import cover, fit, fitted_size
from motedge.runtime.policy.letterbox import stretch


def _noise(rows: int, columns: int) -> np.ndarray:
    return np.random.RandomState(rows).randint(0, 256, (rows, columns, 3), dtype=np.uint8)


@pytest.mark.parametrize("source", [(90, 160), (160, 90), (97, 61), (48, 64), (33, 47), (200, 201)])
def test_covering(source: tuple[int, int]) -> None:
    """The way of diffusers' pipeline: torch's antialiased bilinear, the middle cut out, rounded."""
    size, image = (48, 64), _noise(*source)
    scale = max(size[1] / source[1], size[0] / source[0])
    scaled = math.ceil(scale * source[0]), math.ceil(scale * source[1])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    wide = torch.nn.functional.interpolate(pixels, size=scaled, mode="bilinear", align_corners=False, antialias=True)
    top, left = round((scaled[0] - size[0]) / 2), round((scaled[1] - size[1]) / 2)
    cut = wide[0, :, top : top + size[0], left : left + size[1]].round().clamp(0, 255)
    expected = cut.permute(1, 2, 0).numpy().astype(int)
    difference = np.abs(cover(image, size).astype(int) - expected)
    # In fp32 a value may lie on either side of a half
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("source", [(90, 160), (97, 61), (24, 32)])
def test_stretching(source: tuple[int, int]) -> None:
    image = _noise(*source)
    expected = np.asarray(Image.fromarray(image).resize((64, 48), Image.Resampling.BILINEAR))
    assert np.abs(stretch(image, (48, 64)).astype(int) - expected).max() <= 1


def test_shrinking_to_fit() -> None:
    assert fitted_size((720, 1280), (480, 832)) == (468, 832)
    assert fitted_size((540, 640), (544, 736)) == (540, 640)
    assert fitted_size((1, 5000), (480, 832)) == (1, 832)
    small = _noise(120, 200)
    assert fit(small, (128, 208), (120, 208 - 8)) is small
    large = _noise(480, 832)
    made = fit(large, (128, 208), (120, 208))
    assert made.shape == (120, 208, 3)
    pixels = torch.from_numpy(large).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(pixels, size=(120, 208), mode="bicubic", antialias=True)
    np.testing.assert_array_equal(made, expected[0].permute(1, 2, 0).numpy())
    with pytest.raises(UsageError, match=r"content = \[117, 208\]"):
        fit(_noise(720, 1280), (128, 208), (128, 208))
