"""Images against the frozen vectors: every byte that the server and the client make."""

from __future__ import annotations

import numpy as np
import pytest
from droid_vectors import arrays, assert_same_image, make_image, vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import ContractError, ObservationError
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.letterbox import letterbox
from motedge.runtime.policy.resize import resize_bilinear
from motedge.runtime.policy.views import CAMERA_SIZE, COMPOSED_SIZE, VIEW_NAMES, compose_views, view_regions


@pytest.mark.parametrize("case", vectors()["resize"], ids=lambda case: f"{case['source']}-{case['target']}")
def test_resize_bytes(case) -> None:
    image = make_image("noise", case["seed"], case["source"])
    assert_same_image(resize_bilinear(image, tuple(case["target"])), case["result"])


@pytest.mark.parametrize("case", vectors()["compose"], ids=lambda case: str(case["seeds"][0]))
def test_server_composition(case) -> None:
    """The server halves whatever it gets; with cameras of 640 x 360 that is `compose_views`."""
    wrist, left, right = (make_image(case["kind"], s, z) for s, z in zip(case["seeds"], case["sizes"], strict=True))
    half = wrist.shape[0] // 2, wrist.shape[1] // 2
    below = np.concatenate([resize_bilinear(left, half), resize_bilinear(right, half)], axis=1)
    assert_same_image(np.concatenate([wrist, below]), case["result"])
    if {tuple(size) for size in case["sizes"]} == {CAMERA_SIZE}:
        composed, missing = compose_views({"wrist": wrist, "left": left, "right": right})
        assert_same_image(composed, case["result"])
        assert missing == ()


@pytest.mark.parametrize("case", vectors()["client"], ids=lambda case: str(case["seeds"][0]))
def test_client_letterbox_and_composition(case) -> None:
    images = [make_image(case["kind"], s, z) for s, z in zip(case["seeds"], case["sizes"], strict=True)]
    for image, expected in zip(images, case["letterboxed"], strict=True):
        assert_same_image(letterbox(image, CAMERA_SIZE), expected)
    composed, _ = compose_views(dict(zip(VIEW_NAMES, images, strict=True)))
    assert_same_image(composed, case["result"])


@pytest.mark.parametrize("case", vectors()["canvas"], ids=lambda case: str(case["content"]))
def test_canvas_bytes(case) -> None:
    image = make_image("noise", case["seed"], case["content"])
    assert_same_image(pad_canvas(image, tuple(case["image_size"][:2])), case["result"])


def test_normalised_levels() -> None:
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([levels, levels[::-1], levels], -1)[None]
    planes = normalise(image)
    assert planes.shape == (1, 3, 1, 256) and planes.dtype == np.float32
    np.testing.assert_array_equal(planes[0, 0, 0], arrays()["normalized_256"])
    np.testing.assert_array_equal(planes[0, 1, 0], arrays()["normalized_256"][::-1])
    buffer = np.empty_like(planes)
    assert normalise(image, out=buffer) is buffer
    np.testing.assert_array_equal(buffer, planes)


def test_missing_views_are_black_and_named() -> None:
    right = make_image("noise", 1, [360, 640])
    composed, missing = compose_views({"right": right})
    assert missing == ("wrist", "left")
    regions = view_regions()
    assert not composed[regions["wrist"]].any() and not composed[regions["left"]].any()
    np.testing.assert_array_equal(composed[regions["right"]], resize_bilinear(right, (180, 320)))
    assert composed.shape == (*COMPOSED_SIZE, 3)


def test_views_that_are_refused() -> None:
    with pytest.raises(ObservationError, match="no image"):
        compose_views({})
    with pytest.raises(ObservationError, match="did you mean 'wrist'"):
        compose_views({"wirst": make_image("noise", 1, [360, 640])})


def test_canvas_too_small() -> None:
    with pytest.raises(ContractError, match="does not fit the canvas"):
        pad_canvas(make_image("noise", 1, [50, 40]), (48, 48))


def test_resize_to_nothing() -> None:
    with pytest.raises(ContractError, match="can't resize"):
        resize_bilinear(make_image("noise", 1, [4, 4]), (0, 3))


def test_letterbox_of_a_line() -> None:
    with pytest.raises(ObservationError, match="too narrow"):
        letterbox(np.zeros((2000, 1, 3), np.uint8), CAMERA_SIZE)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_constant_image_stays_constant(rows: int, columns: int, to_rows: int, to_columns: int, level: int) -> None:
    """Weights sum to one; truncation may cost one level where they do so only to an ulp."""
    resized = resize_bilinear(np.full((rows, columns, 3), level, np.uint8), (to_rows, to_columns))
    assert resized.shape == (to_rows, to_columns, 3)
    assert np.abs(resized.astype(int) - level).max() <= 1


@settings(max_examples=15, deadline=None)
@given(st.integers(20, 500), st.integers(20, 500), st.integers(0, 1000))
def test_letterbox_is_pillows(rows: int, columns: int, seed: int) -> None:
    """In two calls, because Pillow 13 chooses the order of its passes by their cost."""
    pillow = pytest.importorskip("PIL.Image")
    image = make_image("noise", seed, [rows, columns])
    ratio = max(columns / 100, rows / 60)
    size = int(columns / ratio), int(rows / ratio)
    narrow = pillow.fromarray(image).resize((size[0], rows), pillow.Resampling.BILINEAR)
    expected = np.zeros((60, 100, 3), np.uint8)
    top, left = (60 - size[1]) // 2, (100 - size[0]) // 2
    expected[top : top + size[1], left : left + size[0]] = np.asarray(narrow.resize(size, pillow.Resampling.BILINEAR))
    np.testing.assert_array_equal(letterbox(image, (60, 100)), expected)
