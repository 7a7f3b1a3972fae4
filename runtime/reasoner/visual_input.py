"""An image or a clip, made ready for the vision encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.errors import ObservationError
from motedge.runtime.engine import FloatArray
from motedge.runtime.reasoner.bicubic import resize_bicubic
from motedge.runtime.reasoner.fitted_size import image_size, video_size
from motedge.runtime.reasoner.patches import Grid, patchify
from motedge.runtime.reasoner.video_sampling import frame_times
from motedge.runtime.reasoner.vision_settings import VisionSettings


@dataclass(frozen=True)
class VisualInput:
    """Patches of one image or clip."""

    # fp32 [P, patch values]
    patches: FloatArray
    grid: Grid
    # Seconds of each temporal patch; None for an image
    times_s: Optional[tuple[float, ...]] = None


def prepare_image(image: Any, settings: VisionSettings) -> VisualInput:
    """Resizes and cuts an image, uint8 [rows, columns, 3].

    Raises:
        ObservationError: not such an image, or one that is too long for its width.
    """
    frames = _frames([image])
    size = image_size(frames.shape[1], frames.shape[2], settings)
    return VisualInput(*patchify(resize_bicubic(frames, size), settings))


def prepare_video(frames: Any, indexes: Sequence[int], rate_hz: float, settings: VisionSettings) -> VisualInput:
    """Resizes and cuts the sampled frames of a video.

    Args:
        frames: uint8 [F, rows, columns, 3], or as many images of one size.
        indexes: which frames of the video they are, as `sampled_frames` chose them.
        rate_hz: frames per second of the video.
        settings: the family's.

    Raises:
        ObservationError: frames of several sizes or types, of another number than the indexes, too few, or too long
            for their width; no rate.
    """
    clip = _frames(frames)
    if len(indexes) != len(clip):
        raise ObservationError("the video's frames are wrong", expected=f"{len(indexes)} sampled frames", got=len(clip))
    times_s = frame_times(indexes, rate_hz, settings)
    size = video_size(clip.shape[0], clip.shape[1], clip.shape[2], settings)
    patches, grid = patchify(resize_bicubic(clip, size), settings)
    return VisualInput(patches, grid, times_s)


def _frames(images: Any) -> NDArray[np.uint8]:
    """Images of one size as uint8 [frames, rows, columns, 3]."""
    arrays = [np.asarray(image) for image in images]
    shapes = {array.shape for array in arrays}
    first = arrays[0] if arrays else np.empty(0)
    if len(shapes) != 1 or first.ndim != 3 or first.shape[2] != 3 or any(a.dtype != np.uint8 for a in arrays):
        raise ObservationError(
            "can't take this as image or video frames",
            expected="uint8 [rows, columns, 3] (RGB), all of one size",
            got=", ".join(sorted({f"{a.dtype} {a.shape}" for a in arrays})) or "none",
            fix="convert to RGB with 8 bits a channel",
        )
    return np.stack(arrays)
