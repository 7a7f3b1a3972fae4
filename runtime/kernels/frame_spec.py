"""How a camera's frame lies in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from motedge.errors import ObservationError, UsageError, closest
from motedge.runtime.cuda.frames import FORMATS
from motedge.runtime.kernels.yuv import MATRICES

# The kernel counts bytes of a frame in 32 bits
_LARGEST_FRAME_BYTES = (1 << 31) - 1


@dataclass(frozen=True)
class FrameSpec:
    """Size and format of a frame: 8 bits, interleaved RGB or BGR, or NV12 (luma, then Cb and Cr at half size).

    Raises:
        UsageError: an unknown format or matrix.
        ObservationError: sizes that contradict each other.
    """

    # Pixels
    rows: int
    columns: int
    # One of FORMATS
    format: str = "rgb"
    # From one row to the next; None: without a gap. Of NV12, the same for both planes
    pitch_bytes: Optional[int] = None
    # Of NV12: "bt601" (standard definition) or "bt709" (high definition)
    matrix: str = "bt709"
    # Of NV12: luma 0 to 255 instead of 16 to 235
    full_range: bool = False
    # Of NV12: where the second plane starts; None: right after the first
    chroma_offset_bytes: Optional[int] = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"unknown pixel format {self.format!r}", fix=closest(self.format, FORMATS))
        if self.matrix not in MATRICES:
            raise UsageError(f"unknown matrix {self.matrix!r}", fix=closest(self.matrix, MATRICES))
        if min(self.rows, self.columns) < 1:
            self._refuse("at least 1 x 1 pixels", f"{self.columns} x {self.rows}")
        if self.format == "nv12" and (self.rows % 2 or self.columns % 2):
            self._refuse("even sides, for chroma has half of them", f"{self.columns} x {self.rows}")
        if self.pitch < self.row_bytes:
            self._refuse(f"a pitch of at least {self.row_bytes} bytes", self.pitch)
        if self.format == "nv12" and self.chroma_offset < (self.rows - 1) * self.pitch + self.row_bytes:
            self._refuse("chroma behind the luma", f"chroma at byte {self.chroma_offset}")
        if self.nbytes > _LARGEST_FRAME_BYTES:
            self._refuse("less than 2 GiB", f"{self.nbytes:,} bytes")

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of pixels, of luma where it is NV12."""
        return self.columns if self.format == "nv12" else 3 * self.columns

    @property
    def pitch(self) -> int:
        """Bytes from one row to the next."""
        return self.row_bytes if self.pitch_bytes is None else self.pitch_bytes

    @property
    def chroma_offset(self) -> int:
        """Byte at which the second plane of NV12 starts."""
        return self.rows * self.pitch if self.chroma_offset_bytes is None else self.chroma_offset_bytes

    @property
    def nbytes(self) -> int:
        """Bytes from the first pixel to the last."""
        if self.format == "nv12":
            return self.chroma_offset + (self.rows // 2 - 1) * self.pitch + self.columns
        return (self.rows - 1) * self.pitch + self.row_bytes

    def _refuse(self, expected: str, got: object) -> None:
        raise ObservationError(f"no {self.format} frame can lie like this", expected=expected, got=got)
