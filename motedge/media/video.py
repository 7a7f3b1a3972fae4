"""Videos as files: frames of any that FFmpeg reads, and H.264 in an mp4 that browsers play. Through PyAV.

The same frames do not always make the same bytes: of videos of noise x264 (PyAV 18.1, with one thread too) now and then
decides otherwise. To compare results, compare frames or latents before they are encoded.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.errors import DataError, HostError, UsageError
from motedge.files import PathLike, atomic_path
from motedge.media.packages import require_av

Frame = NDArray[np.uint8]
# The first that this build of FFmpeg has; the second plays in fewer places
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
# x264's scale, 0 is lossless and 23 its default: nearly nothing is lost to the eye
_QUALITY = "17"
# MPEG-4 counts time in 16 bits
_MOST_FRAMES_A_SECOND = 65535
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Video:
    """The first frames of a file."""

    # uint8 RGB [rows, columns, 3] each
    frames: list[Frame]
    # Frames a second, as the file says; None where it does not
    fps: Optional[float]


def read_video(path: PathLike, most: int, last: bool = False) -> Video:
    """The first frames of a video, or the last ones; `most` of them are held in memory.

    Raises:
        DataError: no such file, no video in it, or a codec that this FFmpeg has no decoder for.
        UsageError: `most` is below 1.
        MissingPackageError: PyAV is not installed.
    """
    av = require_av("to read videos")
    if most < 1:
        raise UsageError("no frames are asked for", expected="at least 1", got=most)
    if not Path(path).is_file():
        raise DataError(f"there is no video {path}", fix="check the path")
    frames: list[Frame] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} has no picture", expected="a file with a video stream")
            stream = container.streams.video[0]
            fps = float(stream.average_rate) if stream.average_rate else None
            for picture in container.decode(stream):
                frames.append(np.asarray(picture.to_ndarray(format="rgb24"), dtype=np.uint8))
                if len(frames) > most:
                    frames.pop(0)
                if len(frames) == most and not last:
                    break
    # A stream of an unknown codec has no decoder to open: AttributeError or ValueError, by PyAV's version
    except (av.error.FFmpegError, OSError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path} can't be decoded",
            expected="a video in a codec that FFmpeg reads, such as H.264",
            got=str(error),
            fix="convert it: ffmpeg -i IN -c:v libx264 OUT.mp4",
        ) from error
    if not frames:
        raise DataError(f"{path} has no frames", fix="take another video")
    return Video(frames, fps)


def write_video(target: PathLike, chunks: Iterable[NDArray[np.uint8]], fps: float) -> int:
    """Writes an mp4 (H.264, 4:2:0) as frames come; the file appears whole or not at all. Returns how many it has.

    Args:
        target: the file.
        chunks: uint8 RGB [n, rows, columns, 3] each; rows and columns even, as 4:2:0 needs them.
        fps: frames a second.

    Raises:
        UsageError: no frames, another type, an odd size, or a rate that the file can't hold.
        HostError: the disk is full or not writable, or this FFmpeg has no encoder.
        MissingPackageError: PyAV is not installed.
    """
    av, count = require_av("to write videos"), 0
    with atomic_path(target) as partial, av.open(str(partial), "w", format="mp4") as sink:
        stream: Any = None
        for chunk in chunks:
            if stream is None:
                stream = _stream(av, sink, chunk, fps)
            for frame in chunk:
                sink.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
                count += 1
        if stream is None:
            raise UsageError("a video without frames can't be written", expected="at least 1 frame", got=0)
        sink.mux(stream.encode(None))
    return count


def _stream(av: Any, sink: Any, chunk: NDArray[np.uint8], fps: float) -> Any:
    shape = chunk.shape
    if chunk.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[1] % 2 or shape[2] % 2:
        expected = "uint8 [n, rows, columns, 3], rows and columns even"
        raise UsageError("these frames can't be written", expected=expected, got=f"{chunk.dtype} {shape}")
    encoder = next((name for name in _ENCODERS if name in av.codecs_available), None)
    if encoder is None:
        raise HostError("this FFmpeg has no encoder for an mp4", expected=" or ".join(_ENCODERS))
    if encoder != _ENCODERS[0]:
        _log.warning("the video is encoded by %s: this FFmpeg has no %s", encoder, _ENCODERS[0])
    rate = Fraction(fps).limit_denominator(1001) if math.isfinite(fps) else Fraction(0)
    if not 0 < rate <= _MOST_FRAMES_A_SECOND:
        expected = f"1/1001 to {_MOST_FRAMES_A_SECOND} frames a second"
        raise UsageError("a video can't have this rate", expected=expected, got=fps)
    stream = sink.add_stream(encoder, rate=rate)
    stream.height, stream.width, stream.pix_fmt = shape[1], shape[2], "yuv420p"
    if encoder == _ENCODERS[0]:
        stream.options = {"crf": _QUALITY}
    else:
        # Of a size that shows no blocks: a tenth of a bit for each pixel of each frame would
        stream.bit_rate = int(0.4 * shape[1] * shape[2] * fps)
    return stream
