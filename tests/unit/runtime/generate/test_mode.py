"""Modes and their defaults, resolutions, and what a request may hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from motedge.errors import UsageError
from motedge.export.shapes import SHAPE_SETS
from motedge.runtime.generate import MODES, GenerateRequest, mode_defaults
from motedge.runtime.generate.buckets import BUCKETS, is_bucket, nearest_bucket, ratio_name, tier_of
from motedge.runtime.generate.shape import GenerateShape

PICTURE = np.zeros((16, 16, 3), np.uint8)


def test_defaults() -> None:
    assert vars(mode_defaults("text2image", "nano")) == {
        "mode": "text2image",
        "steps": 50,
        "guidance": 4.0,
        "shift": 3.0,
        "frames": 1,
        "fps": 24.0,
    }
    edge, nano = (mode_defaults("image2video", family) for family in ("edge", "nano"))
    assert (edge.steps, edge.guidance, edge.shift, edge.frames) == (20, 6.0, 12.0, 121)
    assert (nano.steps, nano.guidance, nano.shift, nano.frames) == (35, 6.0, 10.0, 189)
    for mode in MODES:
        assert mode_defaults(mode, "super").settings(steps=3).steps == 3
    with pytest.raises(UsageError, match="did you mean 'video2video'"):
        mode_defaults("vid2vid", "edge")


def test_resolutions() -> None:
    assert {tier: len(sizes) for tier, sizes in BUCKETS.items()} == {256: 5, 480: 5, 720: 5, 768: 5}
    assert all(side % 16 == 0 for sizes in BUCKETS.values() for size in sizes for side in size)
    assert nearest_bucket((1080, 1920), 480) == (480, 832)
    assert nearest_bucket((540, 640), 480) == (544, 736)
    assert nearest_bucket((1000, 500), 720) == (1280, 720)
    assert tier_of((480, 832)) == 480
    assert tier_of((468, 832)) == 480
    assert not is_bucket((468, 832))
    assert [ratio_name(size) for size in BUCKETS[720]] == ["1,1", "4,3", "3,4", "16,9", "9,16"]
    with pytest.raises(UsageError, match="256, 480, 720, 768"):
        nearest_bucket((10, 10), 512)


def test_a_shape_set_for_every_resolution() -> None:
    for sizes in BUCKETS.values():
        for rows, columns in sizes:
            shapes = SHAPE_SETS[f"media-{columns}x{rows}"]
            assert shapes.grid == (rows // 16, columns // 16)
            assert (shapes.min_latent_frames, shapes.min_actions) == (1, 0)


def test_a_resolution_for_images_alone(caplog: pytest.LogCaptureFixture) -> None:
    size = (768, 512)
    assert is_bucket(size) and tier_of(size) == 480 and ratio_name(size) == "2,3"
    assert nearest_bucket(size, 480) != size
    shapes = SHAPE_SETS["media-512x768"]
    assert (shapes.canvas, shapes.frames, shapes.min_latent_frames, shapes.max_latent_frames) == (size, 1, 1, 3)
    shape = GenerateShape(size, size, 48, shapes.grid, 64, (1, 3), (0, 3), (2, 64))
    shape.require_size(size)
    assert shape.fit_frames(None, 1) == 1
    assert not caplog.text
    assert shape.fit_frames(5, 1) == 5
    assert "no videos" in caplog.text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": "text2img"}, "did you mean 'text2image'"),
        ({"mode": "image2video"}, "needs image"),
        ({"mode": "text2video", "image": PICTURE}, "or take mode image2video"),
        ({"mode": "forward_dynamics", "image": PICTURE, "embodiment": "av"}, "needs actions"),
        ({"mode": "policy", "image": PICTURE, "actions": [[0]]}, "or take mode forward_dynamics"),
        ({"mode": "policy", "image": PICTURE}, "needs an embodiment"),
        ({"mode": "inverse_dynamics", "video": [PICTURE], "state": [0]}, "or take mode policy"),
        ({"mode": "text2video", "negative_metadata": "same"}, "known: inverse, none"),
        ({"mode": "video2video", "video": [PICTURE], "keep": "middle"}, "known: first, last"),
        ({"mode": "video2video", "video": [PICTURE], "condition_frames": (-1,)}, "numbers from 0"),
        ({"mode": "video2video", "video": [PICTURE], "condition_frames": ()}, "numbers from 0"),
        ({"mode": "inverse_dynamics", "video": [PICTURE], "embodiment": "av", "keep": "last"}, "no end of a video"),
        *(({"mode": "text2video", "fps": fps}, "0.1 to 1000") for fps in (0, -1, 1e-4, 1e5, math.nan, math.inf)),
        ({"mode": "policy", "image": PICTURE, "embodiment": "av", "raw_dim": 0}, "at least 1 channel"),
    ],
)
def test_bad_requests(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        GenerateRequest(**values)
