"""One picture of a video file at a given time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from motedge.errors import DataError, MissingPackageError
from motedge.runtime.policy.resize import Image

# A decoder of FFmpeg otherwise paints over what it can't decode, and says nothing
_STRICT = {"err_detect": "explode"}


def read_frame(video: Path, time_s: float) -> Image:
    """The last picture at or before `time_s`, uint8 RGB [rows, columns, 3]; seeks, decodes a few pictures.

    Raises:
        DataError: the file is no video, damaged, or has no picture within half a frame of that time.
        MissingPackageError: PyAV is not installed.
    """
    av = _av()
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = _STRICT
            # Half a frame of slack: timestamps of the table and of the video are rounded differently
            slack = 0.5 / float(stream.average_rate)
            container.seek(int(time_s / stream.time_base), stream=stream, backward=True)
            found = None
            for picture in container.decode(stream):
                if picture.time is None or (picture.time > time_s + slack and found is not None):
                    break
                found = picture
            if found is None or found.time is None or abs(found.time - time_s) > slack:
                near = "none" if found is None or found.time is None else f"the nearest at {found.time:.2f} s"
                raise DataError(f"{video} has no picture at {time_s:.2f} s", got=near, fix="fetch the video again")
            if found.is_corrupt:
                raise DataError(f"{video} is damaged at {time_s:.2f} s", fix="fetch the video again")
            return np.asarray(found.to_ndarray(format="rgb24"), dtype=np.uint8)
    except (av.error.FFmpegError, ArithmeticError, IndexError, TypeError, ValueError, OSError) as error:
        # A damaged header leaves a rate of 0 or none, besides what FFmpeg says itself
        raise DataError(f"{video} can't be decoded", got=str(error), fix="fetch the video again") from error


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("av", extra="quant", purpose="to read videos") from error
    return av
