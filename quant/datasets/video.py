"""One picture of a video file at a given time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from motedge.errors import DataError, MissingPackageError
from motedge.runtime.policy.resize import Image

# A decoder of FFmpeg otherwise paints over what it can't decode, and says nothing
_STRICT = {"err_detect": "explode"}
# How much earlier to begin, in s, where the picture can't be reached from the key frame before it: pictures around a
# key frame may refer to the group before (open groups, as HEVC and MPEG-4 have them)
_EARLIER_S = (0.0, 1.0, 4.0, 16.0)


def read_frame(video: Path, time_s: float) -> Image:
    """The last picture at or before `time_s`, uint8 RGB [rows, columns, 3]; seeks, decodes a few pictures.

    Raises:
        DataError: the file is no video, damaged, or has no picture within half a frame of that time.
        MissingPackageError: PyAV is not installed.
    """
    av = _av()
    # A damaged header leaves a rate of 0 or none, besides what FFmpeg says itself
    errors = (av.error.FFmpegError, ArithmeticError, IndexError, TypeError, ValueError, OSError)
    problem: Exception | None = None
    for earlier_s in _EARLIER_S:
        try:
            picture = _decode(av, video, time_s, max(time_s - earlier_s, 0.0))
        except errors as error:
            problem = error
        else:
            if picture is not None:
                return picture
            problem = None
        if earlier_s >= time_s:
            break
    if problem is not None:
        raise DataError(f"{video} can't be decoded", got=str(problem), fix="fetch the video again") from problem
    raise DataError(f"{video} has no picture at {time_s:.2f} s", fix="fetch the video again")


def _decode(av: Any, video: Path, time_s: float, begin_s: float) -> Image | None:
    """The picture at `time_s`, decoded from the key frame before `begin_s` on; None if it is not reached from there."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = _STRICT
        # Half a frame of slack: timestamps of the table and of the video are rounded differently
        slack = 0.5 / float(stream.average_rate)
        container.seek(int(begin_s / stream.time_base), stream=stream, backward=True)
        found = None
        for picture in container.decode(stream):
            if picture.time is None or picture.time > time_s + slack:
                break
            found = picture
        if found is None or found.time < time_s - slack:
            return None
        if found.is_corrupt:
            raise ValueError(f"the picture at {time_s:.2f} s is damaged")
        return np.asarray(found.to_ndarray(format="rgb24"), dtype=np.uint8)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("av", extra="quant", purpose="to read videos") from error
    return av
