"""Frame counts and pixels of videos, against diffusers' image processor."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from motedge.errors import ContractError
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.vae import latent_frames, pixel_frames, round_frames, to_uint8
from motedge.runtime.vae.pixels import from_uint8


def test_frame_counts() -> None:
    for latents, frames in ((1, 1), (2, 5), (9, 33), (16, 61), (48, 189)):
        assert latent_frames(frames) == latents
        assert pixel_frames(latents) == frames
        assert round_frames(frames) == frames


@pytest.mark.parametrize(("frames", "words"), [(0, "such as 1 or 5"), (4, "such as 1 or 5"), (32, "such as 29 or 33")])
def test_other_frame_counts_are_refused(frames: int, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        latent_frames(frames)


def test_rounding_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert round_frames(60) == 57
    assert "60 frames are asked for, 57 are made" in caplog.text
    with pytest.raises(ContractError, match="needs a frame"):
        round_frames(0)
    with pytest.raises(ContractError, match="no latent frames"):
        pixel_frames(0)


def test_grey_levels_are_those_of_diffusers() -> None:
    every = np.arange(-1.01, 1.01, 1e-4, dtype=np.float32)
    halves = (np.arange(255, dtype=np.float32) + np.float32(0.5)) / np.float32(127.5) - 1
    levels = np.concatenate([every, halves])
    frames = np.ascontiguousarray(np.resize(levels, (3, 2, 90, 48)))
    # Frames as a batch, as diffusers' video processor passes them
    batch = torch.from_numpy(frames.transpose(1, 0, 2, 3).copy())
    expected = [np.asarray(image) for image in VaeImageProcessor().postprocess(batch, output_type="pil")]
    np.testing.assert_array_equal(to_uint8(frames), expected)


def test_frames_are_padded_and_brought_into_range() -> None:
    images = np.random.RandomState(1).randint(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    out = np.empty((3, 2, 48, 64), np.float32)
    from_uint8(images, (48, 64), (2, 3), out)
    for index in range(2):
        np.testing.assert_array_equal(out[:, index], normalise(pad_canvas(images[index], (48, 64)))[0])
    np.testing.assert_array_equal(to_uint8(out)[:, :40, :50], images)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((40, 50, 3), np.float32), "is no frame"),
        (np.zeros((40, 50), np.uint8), "is no frame"),
        (np.zeros((48, 50, 3), np.uint8), r"expected: \(32, 48\) to \(47, 63\)"),
        (np.zeros((40, 64, 3), np.uint8), "another size"),
    ],
)
def test_frames_that_the_encoder_can_not_take(frame: np.ndarray, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        from_uint8([frame], (48, 64), (2, 3), np.empty((3, 1, 48, 64), np.float32))
