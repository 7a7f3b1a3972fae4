"""The frames of a video that the reasoner sees, and reading them from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.errors import MissingPackageError, ObservationError, UsageError
from motedge.files import PathLike
from motedge.runtime.reasoner.fitted_size import video_size
from motedge.runtime.reasoner.video_sampling import sampled_frames
from motedge.runtime.reasoner.vision_settings import VisionSettings

# A decoder of FFmpeg otherwise paints over what it can't decode, and says nothing
_STRICT = {"err_detect": "explode"}
# Lists of other files (ffconcat, HLS, ...) would open whatever they name, themselves too. Names of FFmpeg's demuxers
_CONTAINERS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts")


@dataclass(frozen=True)
class Clip:
    """Sampled frames of a video."""

    # uint8 RGB [F, rows, columns, 3]
    frames: NDArray[np.uint8]
    # Which frames of the video they are
    indexes: tuple[int, ...]
    # Frames per second of the video
    rate_hz: float


def read_clip(
    path: PathLike,
    settings: VisionSettings,
    *,
    sample_hz: Optional[float] = None,
    capacity: Optional[int] = None,
    pixels: Optional[int] = None,
) -> Clip:
    """Reads a video file; frames that are not taken are decoded and dropped.

    Args:
        path: the file.
        settings: the model's rate and limits of frames.
        sample_hz: another rate than the settings'.
        capacity: tokens of prompt and reply together; a video of more is refused before it is decoded. None: any.
        pixels: of all sampled frames as they are in the file, which are in memory together; likewise. None: any.

    Raises:
        UsageError: more tokens than the capacity, or more pixels.
        ObservationError: no such file, no video, a codec that is not known, a damaged file, no frames.
        MissingPackageError: PyAV is not installed.
    """
    av, file = _av(), Path(path)
    if not file.is_file():
        raise ObservationError(f"there is no video {file}", fix="check the path")
    try:
        total, rate_hz, size = _header(av, file)
        indexes = sampled_frames(total, rate_hz, settings, sample_hz=sample_hz)
        if capacity is not None and min(size) > 0:
            _check_room(file, len(indexes), size, settings, capacity)
        if pixels is not None:
            _check_pixels(len(indexes) * size[0] * size[1], pixels)
        return Clip(_decode(av, file, indexes, pixels), tuple(indexes), rate_hz)
    # A damaged header leaves a rate of 0 or none, besides what FFmpeg says itself
    except (av.error.FFmpegError, ArithmeticError, IndexError, TypeError, ValueError, OSError) as error:
        raise ObservationError(
            f"{file} is not a video that can be read",
            expected="mp4, mov, mkv, webm, avi or mpegts with a video stream in a codec that FFmpeg knows",
            got=str(error),
            fix="convert it, for example to H.264 in mp4",
        ) from error


def _header(av: Any, file: Path) -> tuple[int, float, tuple[int, int]]:
    """Frames, frames per second, rows and columns of one; counted where the file does not say, 0 where none can."""
    with _opened(av, file) as container:
        stream = container.streams.video[0]
        rate_hz, size = float(stream.average_rate), (int(stream.height or 0), int(stream.width or 0))
        total = int(stream.frames) or sum(1 for packet in container.demux(stream) if packet.size)
    return total, rate_hz, size


def _opened(av: Any, file: Path) -> Any:
    """The container, which is one file."""
    return av.open(str(file), options={"format_whitelist": ",".join(_CONTAINERS)})


def _check_room(file: Path, count: int, size: tuple[int, int], settings: VisionSettings, capacity: int) -> None:
    """UsageError where the visual tokens of so many frames, without any text, are more than the tower holds."""
    rows, columns = (side // settings.token_side for side in video_size(count, *size, settings))
    tokens = -(-count // settings.temporal_patch) * rows * columns
    if tokens > capacity:
        raise UsageError(
            f"the video {file} is too long",
            expected=f"at most {capacity} tokens of prompt and reply",
            got=f"{tokens} tokens of {count} frames",
            fix="fewer frames a second (--video-hz), a shorter video, or a larger --capacity, up to the graph's",
        )


def _check_pixels(there: int, most: int) -> None:
    if there > most:
        raise UsageError(
            "the frames of the video are too large",
            expected=f"at most {most} pixels, all sampled frames together",
            got=f"{there} pixels",
            fix="a smaller size, or a shorter video",
        )


def _decode(av: Any, file: Path, indexes: Sequence[int], pixels: Optional[int]) -> NDArray[np.uint8]:
    """These frames, in the order of showing, uint8 [F, rows, columns, 3]."""
    wanted, found, decoded, seen = set(indexes), [], 0, 0
    with _opened(av, file) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = _STRICT
        for picture in container.decode(stream):
            if decoded in wanted:
                # The header may have lied
                seen += picture.width * picture.height
                if pixels is not None:
                    _check_pixels(seen, pixels)
                found.append(np.asarray(picture.to_ndarray(format="rgb24"), dtype=np.uint8))
            decoded += 1
            if decoded > indexes[-1]:
                break
    if len(found) != len(wanted):
        raise ValueError(f"it ends after {decoded} frames, and frame {indexes[-1]} is wanted")
    return np.stack(found)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("av", extra="video", purpose="to read videos") from error
    return av
