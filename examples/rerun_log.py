"""A .rrd file for the Rerun viewer: pictures, curves and lines on one axis of time. Needs motedge[rerun].

rerun drive.rrd
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

from numpy.typing import ArrayLike

from motedge.errors import MissingPackageError
from motedge.files import PARTIAL_SUFFIX

# Pictures are kept as JPEG of this quality: ten minutes of them raw are gigabytes
_QUALITY = 85


class RerunLog:
    """Writes beside `path` and renames at the end, also when what is logged fails: the log is then wanted most.

    Without a path it takes everything and keeps nothing.
    """

    def __init__(self, path: Optional[Path], name: str) -> None:
        """Opens the file.

        Args:
            path: the .rrd file, or None.
            name: of the program; the viewer keeps its layout by it.

        Raises:
            MissingPackageError: rerun-sdk is not installed.
        """
        self._path = path
        self._stream: Any = None
        if path is None:
            return
        try:
            import rerun
        except ImportError as error:
            raise MissingPackageError("rerun-sdk", extra="rerun", purpose="to write a log for its viewer") from error
        self._rr: Any = rerun
        self._stream = rerun.RecordingStream(name)
        self._part = path.with_name(path.name + PARTIAL_SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream.save(str(self._part))

    def at(self, seconds: float) -> None:
        """What follows is of this moment."""
        if self._stream is not None:
            self._stream.set_time("time", duration=seconds)

    def picture(self, entity: str, image: Any) -> None:
        """An image, uint8 [rows, columns, 3]."""
        if self._stream is not None:
            self._stream.log(entity, self._rr.Image(image).compress(jpeg_quality=_QUALITY))

    def numbers(self, entity: str, values: Mapping[str, float]) -> None:
        """A curve each, below `entity`."""
        if self._stream is not None:
            for name, value in values.items():
                self._stream.log(f"{entity}/{name}", self._rr.Scalars(float(value)))

    def line(self, entity: str, points: ArrayLike) -> None:
        """A line through points [n, 2], in the pixels of the picture above it."""
        if self._stream is not None:
            self._stream.log(entity, self._rr.LineStrips2D([points]))

    def text(self, entity: str, words: str) -> None:
        """A line of text."""
        if self._stream is not None:
            self._stream.log(entity, self._rr.TextLog(words))

    def close(self) -> None:
        """Writes what is left and gives the file its name. Harmless when repeated."""
        stream, self._stream = self._stream, None
        if stream is not None and self._path is not None:
            stream.flush()
            stream.disconnect()
            self._part.replace(self._path)

    def __enter__(self) -> RerunLog:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
