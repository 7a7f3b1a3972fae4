"""The size to which an image or a clip is resized: whole tokens, aspect about kept, pixels within limits.

The rules are transformers 5.23's `smart_resize` of `cosmos3_edge` (images and video), of `qwen2_vl` (images of Nano and
Super) and of `qwen3_vl` (their video). All three agree but in what they do with images smaller than a token.
"""

from __future__ import annotations

import math

from motedge.errors import ObservationError
from motedge.runtime.reasoner.vision_settings import VisionSettings

# Longer side by shorter side
ASPECT_MAX = 200


def image_size(rows: int, columns: int, settings: VisionSettings) -> tuple[int, int]:
    """Rows and columns of a resized image.

    Raises:
        ObservationError: an empty image, or one more than 200 times as long as wide.
    """
    _require_pixels(rows, columns)
    if settings.enlarges_small_images:
        rows, columns = _enlarged(rows, columns, settings.token_side)
    return _fitted(rows, columns, 1, 1, settings.token_side, settings.image_pixels)


def video_size(frames: int, rows: int, columns: int, settings: VisionSettings) -> tuple[int, int]:
    """Rows and columns of each resized frame of a clip of `frames` sampled frames.

    Raises:
        ObservationError: an empty frame, one more than 200 times as long as wide, or too few frames for a patch.
    """
    _require_pixels(rows, columns)
    if frames < settings.temporal_patch:
        raise ObservationError(
            "the video is too short", expected=f"at least {settings.temporal_patch} frames", got=frames
        )
    rows, columns = _enlarged(rows, columns, settings.token_side)
    # Python's round, half to even, as in the reference
    counted = round(frames / settings.temporal_patch) * settings.temporal_patch
    return _fitted(rows, columns, frames, counted, settings.token_side, settings.video_pixels)


def _fitted(rows: int, columns: int, frames: int, counted: int, side: int, pixels: tuple[int, int]) -> tuple[int, int]:
    aspect = max(rows, columns) / min(rows, columns)
    if aspect > ASPECT_MAX:
        raise ObservationError(
            "the image is too long for its width", expected=f"sides at most 1:{ASPECT_MAX}", got=f"1:{aspect:.0f}"
        )
    fitted: tuple[int, ...] = (round(rows / side) * side, round(columns / side) * side)
    least, most = pixels
    if counted * fitted[0] * fitted[1] > most:
        shrink = math.sqrt(frames * rows * columns / most)
        fitted = tuple(max(side, math.floor(n / shrink / side) * side) for n in (rows, columns))
    elif counted * fitted[0] * fitted[1] < least:
        grow = math.sqrt(least / (frames * rows * columns))
        fitted = tuple(math.ceil(n * grow / side) * side for n in (rows, columns))
    return fitted[0], fitted[1]


def _enlarged(rows: int, columns: int, side: int) -> tuple[int, int]:
    if rows >= side and columns >= side:
        return rows, columns
    scale = max(side / rows, side / columns)
    return int(rows * scale), int(columns * scale)


def _require_pixels(rows: int, columns: int) -> None:
    if min(rows, columns) < 1:
        raise ObservationError("the image is empty", expected="at least 1 x 1 pixels", got=f"{rows} x {columns}")
