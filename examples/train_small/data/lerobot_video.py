"""Episodes of one camera as mp4 files, several episodes a file, and where each of them lies (LeRobot v3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.errors import MissingPackageError

# Colour at full resolution: at half of it the middle's dashes and the road's edge bleed, 2.4 levels off in the mean
# instead of 0.6. A key frame a second
CODEC, PIXELS, OPTIONS = "libx264", "yuv444p", {"crf": "10", "g": "10"}


class CameraFiles:
    """Writes `videos/<key>/chunk-000/file-000.mp4` and on. To be closed, also after a failure."""

    def __init__(self, root: Path, key: str, fps: int, most_bytes: int, files_a_chunk: int) -> None:
        """`most_bytes`: no episode begins in a file that is as large already."""
        self._root, self.key, self._fps = root, key, fps
        self._most, self._files_a_chunk = most_bytes, files_a_chunk
        self._av = _av()
        self._container: Any = None
        self._stream: Any = None
        self._number, self._frames, self._bytes = -1, 0, 0

    def add(self, frames: NDArray[np.uint8]) -> dict[str, Any]:
        """Writes one episode, uint8 [n, rows, columns, 3]; returns its fields of meta/episodes."""
        if self._container is None or self._bytes >= self._most:
            self.close()
            self._open(frames.shape[1], frames.shape[2])
        start_s = self._frames / self._fps
        for number, picture in enumerate(frames):
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = self._frames
            # So that an episode can be read without the one before it
            frame.pict_type = self._av.video.frame.PictureType.I if number == 0 else 0
            self._frames += 1
            self._mux(frame)
        place = self._number // self._files_a_chunk, self._number % self._files_a_chunk
        return {
            f"videos/{self.key}/chunk_index": place[0],
            f"videos/{self.key}/file_index": place[1],
            f"videos/{self.key}/from_timestamp": start_s,
            f"videos/{self.key}/to_timestamp": self._frames / self._fps,
        }

    def close(self) -> None:
        """Finishes the file at hand; harmless when repeated."""
        if self._container is not None:
            self._mux(None)
            self._container.close()
            self._container = None

    def info(self, rows: int, columns: int) -> dict[str, Any]:
        """The camera's entry in the features of meta/info.json."""
        return {
            "dtype": "video",
            "shape": [rows, columns, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": rows,
                "video.width": columns,
                "video.codec": "h264",
                "video.pix_fmt": PIXELS,
                "video.is_depth_map": False,
                "video.fps": self._fps,
                "video.channels": 3,
                "has_audio": False,
            },
        }

    def _open(self, rows: int, columns: int) -> None:
        self._number, self._frames, self._bytes = self._number + 1, 0, 0
        chunk, file = divmod(self._number, self._files_a_chunk)
        path = self._root / "videos" / self.key / f"chunk-{chunk:03d}" / f"file-{file:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(path), "w")
        self._stream = self._container.add_stream(CODEC, rate=self._fps, options=OPTIONS)
        self._stream.height, self._stream.width, self._stream.pix_fmt = rows, columns, PIXELS

    def _mux(self, frame: Optional[Any]) -> None:
        for packet in self._stream.encode(frame):
            self._bytes += packet.size
            self._container.mux(packet)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("av", extra="quant", purpose="to write videos") from error
    return av
