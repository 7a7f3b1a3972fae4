"""Pictures and videos that a question brings along, as data: URLs. Nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import struct
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from motedge.errors import HostError, MissingPackageError, ObservationError
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.upright import upright
from motedge.runtime.reasoner.clip import Clip, read_clip
from motedge.runtime.reasoner.vision_settings import VisionSettings

# What Pillow may take the bytes for: fewer decoders, less that can go wrong
_FORMATS = ("PNG", "JPEG", "WEBP")
_SHOWN = 60


def decode_data_url(url: Any) -> bytes:
    """The bytes of `data:TYPE;base64,...`.

    Raises:
        ObservationError: another URL, or one that is damaged.
    """
    expected = "data:image/png;base64,... or another type, the file itself in base64"
    if not isinstance(url, str):
        raise ObservationError("an image or video without a URL", expected=expected, got=type(url).__name__)
    head, comma, data = url.partition(",")
    if not head.startswith("data:") or not comma:
        raise ObservationError(
            "images and videos come with the request",
            expected=expected,
            got=url[:_SHOWN],
            why="a server on a vehicle fetches nothing on behalf of a client",
        )
    if not head.endswith(";base64"):
        raise ObservationError("the data: URL is not in base64", expected=expected, got=head[:_SHOWN])
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ObservationError("the data: URL is damaged", expected=expected, got=str(error)) from error


def image_header(data: bytes, pixels: int) -> tuple[int, int]:
    """Rows and columns of a picture as its header has them; nothing is decoded.

    Raises:
        ObservationError, MissingPackageError: as of `decode_image`.
    """
    with _opened(data, pixels) as picture:
        columns, rows = picture.size
        return int(rows), int(columns)


def decode_image(data: bytes, pixels: int) -> Image:
    """A picture as uint8 RGB [rows, columns, 3], turned upright as its EXIF data says.

    Args:
        data: PNG, JPEG or WebP.
        pixels: it has at most so many; looked at before it is decoded.

    Raises:
        ObservationError: not such a picture, a damaged one, or too large.
        MissingPackageError: Pillow is not installed.
    """
    with _opened(data, pixels) as picture:
        return np.asarray(upright(picture).convert("RGB"), dtype=np.uint8)


@contextlib.contextmanager
def _opened(data: bytes, pixels: int) -> Iterator[Any]:
    """What Pillow makes of the header; its errors within, too, are the picture's."""
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise MissingPackageError("pillow", extra="serve", purpose="to read images") from error
    expected = f"{', '.join(_FORMATS)} of at most {pixels} pixels"
    try:
        # Its own warning of large pictures comes at a size of its own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
            with pillow.open(io.BytesIO(data), formats=_FORMATS) as picture:
                columns, rows = picture.size
                if rows * columns > pixels:
                    raise ObservationError("the image is too large", expected=expected, got=f"{columns} x {rows}")
                yield picture
    # Where EXIF data end too early, it is one of struct's
    except (OSError, ValueError, SyntaxError, struct.error, pillow.DecompressionBombError) as error:
        raise ObservationError("the image can't be read", expected=expected, got=str(error)) from error


def decode_video(
    data: bytes, settings: VisionSettings, capacity: int, sample_hz: Optional[float] = None, *, pixels: int
) -> Clip:
    """The frames of a video that the reasoner sees.

    Args:
        data: a file that FFmpeg reads.
        settings: the model's rate and limits of frames.
        capacity: tokens of prompt and reply; a video of more is refused before it is decoded.
        sample_hz: frames a second that are taken; None: the settings'.
        pixels: of all those frames together; likewise.

    Raises:
        ObservationError, UsageError, MissingPackageError: as of `read_clip`.
        HostError: it can't be stored, which FFmpeg needs to seek in it.
    """
    # Many containers have what is needed first at their end
    with contextlib.ExitStack() as stored:
        try:
            folder = stored.enter_context(tempfile.TemporaryDirectory(prefix="motedge-"))
            file = Path(folder) / "video"
            file.write_bytes(data)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise HostError(
                "there is no room for the video", expected=f"{len(data)} bytes for temporary files", got=reason
            ) from error
        return read_clip(file, settings, sample_hz=sample_hz, capacity=capacity, pixels=pixels)
