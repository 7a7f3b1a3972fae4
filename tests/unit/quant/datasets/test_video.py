"""Single pictures of a video against the whole of it, decoded in order; damage that a decoder would paint over."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

import av

from motedge.errors import DataError
from motedge.quant.datasets.video import read_frame

COUNT = 60


def _write(path: Path, rate: Fraction, **options: str) -> Path:
    """A bright bar that moves over noise, in groups of ten with frames that refer to later ones."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate, options={"g": "10", "bf": "2", **options})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 96, "yuv420p", 4_000_000
        for number in range(COUNT):
            picture = random.integers(0, 90, (96, 128, 3), np.uint8)
            picture[:, 2 * number : 2 * number + 8] = 200
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def _decoded(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(picture.time, picture.to_ndarray(format="rgb24")) for picture in container.decode(video=0)]


@pytest.mark.parametrize("rate", [Fraction(15), Fraction(30000, 1001)], ids=["15", "29.97"])
def test_each_picture_is_that_of_decoding_in_order(tmp_path: Path, rate: Fraction) -> None:
    video = _write(tmp_path / "v.mp4", rate)
    whole = _decoded(video)
    assert len(whole) == COUNT
    for number in (0, 1, 9, 10, 11, 27, 44, 58, 59):
        # Tables keep times as fp32
        time_s = float(np.float32(number / float(rate)))
        np.testing.assert_array_equal(read_frame(video, time_s), whole[number][1], err_msg=str(number))


def test_reading_seeks(tmp_path: Path) -> None:
    """The first half of the pictures is destroyed, and a late one is still exact."""
    video = _write(tmp_path / "v.mp4", Fraction(15))
    last = _decoded(video)[55][1]
    data = bytearray(video.read_bytes())
    start = data.find(b"mdat") + 4
    data[start : len(data) // 2] = bytes(len(data) // 2 - start)
    video.write_bytes(data)
    np.testing.assert_array_equal(read_frame(video, 55 / 15), last)
    with pytest.raises(DataError, match=r"v\.mp4"):
        read_frame(video, 3 / 15)


def test_small_damage_is_never_painted_over(tmp_path: Path) -> None:
    """A few bytes within a picture: by default a decoder conceals them, so that the picture is merely wrong."""
    video = _write(tmp_path / "v.mp4", Fraction(15), bf="0")
    whole = _decoded(video)
    with av.open(str(video)) as container:
        packet = list(container.demux(video=0))[33]
    data = bytearray(video.read_bytes())
    middle = packet.pos + packet.size // 2
    data[middle : middle + 40] = bytes(40)
    video.write_bytes(data)
    for number in (33, 35):  # the damaged picture, and one that is built on it and not marked itself
        with pytest.raises(DataError, match=r"v\.mp4 can't be decoded"):
            read_frame(video, number / 15)
    np.testing.assert_array_equal(read_frame(video, 25 / 15), whole[25][1])


@pytest.mark.parametrize("time_s", [COUNT / 15, 9.0])
def test_beyond_the_end(tmp_path: Path, time_s: float) -> None:
    video = _write(tmp_path / "v.mp4", Fraction(15))
    with pytest.raises(DataError, match="has no picture at"):
        read_frame(video, time_s)


@pytest.mark.parametrize("data", [b"", b"no video at all", b"\0" * 5000], ids=["empty", "text", "zeros"])
def test_what_is_no_video(tmp_path: Path, data: bytes) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(data)
    with pytest.raises(DataError, match=r"v\.mp4 can't be decoded"):
        read_frame(video, 0.0)
    with pytest.raises(DataError, match="can't be decoded"):
        read_frame(tmp_path / "absent.mp4", 0.0)
