"""One picture of a video file at a given time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from motedge.errors import DataError, MissingPackageError
from motedge.runtime.policy.resize import Image


def read_frame(video: Path, time_s: float) -> Image:
    """The last picture at or before `time_s`, uint8 RGB [rows, columns, 3]; seeks, decodes a few pictures.

    Raises:
        DataError: the file is no video, damaged, or ends before.
        MissingPackageError: PyAV is not installed.
    """
    av = _av()
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            # Half a frame of slack: timestamps of the table and of the video are rounded differently
            slack = 0.5 / float(stream.average_rate)
            container.seek(int(time_s / stream.time_base), stream=stream, backward=True)
            found = None
            for picture in container.decode(stream):
                if picture.time is None or (picture.time > time_s + slack and found is not None):
                    break
                found = picture
            if found is None or found.time is None or found.time < time_s - 3 * slack:
                last = "none" if found is None else f"the last one at {found.time:.2f} s"
                raise DataError(f"{video} has no picture at {time_s:.2f} s", got=last, fix="fetch the video again")
            return np.asarray(found.to_ndarray(format="rgb24"), dtype=np.uint8)
    except (av.error.FFmpegError, IndexError, ValueError, OSError) as error:
        raise DataError(f"{video} can't be decoded", got=str(error), fix="fetch the video again") from error


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("av", extra="quant", purpose="to read videos") from error
    return av
