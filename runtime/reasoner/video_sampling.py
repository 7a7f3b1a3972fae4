"""Which frames of a video the reasoner sees, and when they were.

The rules are transformers 5.23's `sample_frames` and `_calculate_timestamps` of `cosmos3_edge` and `qwen3_vl`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Optional

import numpy as np

from motedge.errors import ObservationError
from motedge.runtime.reasoner.vision_settings import VisionSettings


def sampled_frames(
    total: int, rate_hz: float, settings: VisionSettings, *, sample_hz: Optional[float] = None
) -> list[int]:
    """Indexes of the frames to take, evenly from the first to the last.

    Args:
        total: frames of the video.
        rate_hz: its frames per second.
        settings: the family's rate and limits.
        sample_hz: another rate than the settings'.

    Raises:
        ObservationError: no frames, or a rate that is not above 0.
    """
    wanted_hz = settings.video_hz if sample_hz is None else sample_hz
    _require_rate(rate_hz, "the video's rate")
    _require_rate(wanted_hz, "the rate of sampling")
    if total < 1:
        raise ObservationError("the video is empty", expected="at least 1 frame", got=total)
    least, most = settings.video_frames
    count = min(max(int(total / rate_hz * wanted_hz), least), most, total)
    return [int(index) for index in np.linspace(0, total - 1, count).round()]


def frame_times(indexes: Sequence[int], rate_hz: float, settings: VisionSettings) -> tuple[float, ...]:
    """Seconds of each temporal patch: the middle between its first and its last frame.

    Raises:
        ObservationError: a rate that is not above 0.
    """
    _require_rate(rate_hz, "the video's rate")
    size = settings.temporal_patch
    missing = -len(indexes) % size
    times_s = [index / rate_hz for index in [*indexes, *list(indexes[-1:]) * missing]]
    return tuple((times_s[start] + times_s[start + size - 1]) / 2 for start in range(0, len(times_s), size))


def time_text(time_s: float) -> str:
    """What stands before a frame in the prompt."""
    return f"<{time_s:.1f} seconds>"


def _require_rate(rate_hz: float, what: str) -> None:
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise ObservationError(f"{what} is wrong", expected="frames per second, above 0", got=rate_hz)
