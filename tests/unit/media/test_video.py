"""Videos and pictures as files: what is written can be read, and bad ones are named."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from motedge.errors import DataError, UsageError
from motedge.media.image import write_image
from motedge.media.video import read_video, write_video

av = pytest.importorskip("av")


def _frames(count: int, rows: int = 32, columns: int = 48) -> np.ndarray:
    """A ramp that moves; smooth, so that compression hardly changes it."""
    ramp = np.linspace(0, 200, columns)[None, None, :, None] + np.arange(count)[:, None, None, None] * 4
    return np.broadcast_to(ramp, (count, rows, columns, 3)).astype(np.uint8)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    frames = _frames(9)
    assert write_video(tmp_path / "a.mp4", iter([frames[:1], frames[1:5], frames[5:]]), 10.0) == 9
    video = read_video(tmp_path / "a.mp4", 100)
    assert video.fps == 10.0
    assert len(video.frames) == 9
    assert np.abs(np.stack(video.frames).astype(int) - frames).max() <= 6
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.frames) == ("h264", "yuv420p", 9)


@pytest.mark.parametrize("fps", [24.0, 30000 / 1001, 12.5, 0.1, 1000.0])
def test_rates(tmp_path: Path, fps: float) -> None:
    write_video(tmp_path / "a.mp4", [_frames(5)], fps)
    assert read_video(tmp_path / "a.mp4", 1).fps == pytest.approx(fps, rel=1e-4)


@pytest.mark.parametrize("fps", [0.0, 1e-4, 1e6, math.nan, math.inf])
def test_rates_that_no_file_can_have(tmp_path: Path, fps: float) -> None:
    with pytest.raises(UsageError, match="can't have this rate"):
        write_video(tmp_path / "a.mp4", [_frames(5)], fps)
    assert not list(tmp_path.iterdir())


def test_a_part_of_a_video(tmp_path: Path) -> None:
    frames = _frames(9)
    write_video(tmp_path / "a.mp4", [frames], 10.0)
    first, last = read_video(tmp_path / "a.mp4", 3), read_video(tmp_path / "a.mp4", 3, last=True)
    assert np.abs(np.stack(first.frames).astype(int) - frames[:3]).max() <= 6
    assert np.abs(np.stack(last.frames).astype(int) - frames[6:]).max() <= 6


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no video"):
        read_video(tmp_path / "a.mp4", 1)
    (tmp_path / "b.mp4").write_bytes(b"no video at all")
    with pytest.raises(DataError, match="ffmpeg -i IN"):
        read_video(tmp_path / "b.mp4", 1)
    with av.open(str(tmp_path / "c.mp4"), "w") as sink:
        sound = sink.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in (*sound.encode(frame), *sound.encode(None)):
            sink.mux(packet)
    with pytest.raises(DataError, match="no picture"):
        read_video(tmp_path / "c.mp4", 1)
    with pytest.raises(UsageError, match="no frames are asked for"):
        read_video(tmp_path / "c.mp4", 0)
    # Cut off in the middle of its index
    write_video(tmp_path / "d.mp4", [_frames(9)], 10.0)
    whole = (tmp_path / "d.mp4").read_bytes()
    (tmp_path / "d.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="can't be decoded"):
        read_video(tmp_path / "d.mp4", 9)


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    def broken() -> object:
        yield _frames(3)
        raise RuntimeError("the decoder failed")

    with pytest.raises(RuntimeError, match="the decoder failed"):
        write_video(tmp_path / "a.mp4", broken(), 10.0)
    for chunks in ([], [_frames(1, rows=31)], [_frames(1).astype(np.float32)]):
        with pytest.raises(UsageError):
            write_video(tmp_path / "a.mp4", chunks, 10.0)
    assert list(tmp_path.iterdir()) == []


def test_pictures(tmp_path: Path) -> None:
    from PIL import Image

    picture = _frames(1)[0]
    write_image(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture)
    with pytest.raises(UsageError, match=r"\.png, \.jpg"):
        write_image(tmp_path / "a.gif", picture)
    with pytest.raises(UsageError, match="no picture"):
        write_image(tmp_path / "a.png", picture[..., 0])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
