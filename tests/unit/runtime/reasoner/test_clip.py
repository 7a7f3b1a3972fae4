"""Videos read from files: which frames, their order, damaged and truncated files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motedge.errors import ObservationError, UsageError
from motedge.runtime.reasoner import clip as clip_module
from motedge.runtime.reasoner.clip import read_clip
from motedge.runtime.reasoner.video_sampling import sampled_frames
from motedge.runtime.reasoner.vision_settings import EDGE, QWEN3_VL, VisionSettings
from motedge.runtime.reasoner.visual_input import prepare_video

av = pytest.importorskip("av")
FRAMES, RATE_HZ = 30, 10


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of one grey each, the brighter the later; with B frames, so that packets are out of order."""
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE_HZ, options={"bf": "2", "qscale": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * index, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("sample_hz", [None, 5.0, 10.0])
def test_frames_are_those_asked_for(video: Path, sample_hz: float | None) -> None:
    clip = read_clip(video, EDGE, sample_hz=sample_hz)
    assert list(clip.indexes) == sampled_frames(FRAMES, RATE_HZ, EDGE, sample_hz=sample_hz)
    assert clip.rate_hz == RATE_HZ and clip.frames.shape[1:] == (48, 64, 3)
    with av.open(str(video)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(clip.frames, np.stack(decoded)[list(clip.indexes)])
    # The codec blurs a little from frame to frame
    assert np.abs(clip.frames.mean(axis=(1, 2, 3)) - 8 * np.array(clip.indexes)).max() < 8


@pytest.mark.parametrize("settings", [EDGE, QWEN3_VL], ids=["edge", "nano"])
def test_too_many_tokens_are_refused_before_decoding(
    video: Path, monkeypatch: pytest.MonkeyPatch, settings: VisionSettings
) -> None:
    indexes = sampled_frames(FRAMES, RATE_HZ, settings)
    frames = np.zeros((len(indexes), 48, 64, 3), np.uint8)
    grid = prepare_video(frames, indexes, RATE_HZ, settings).grid
    tokens = grid.frames * grid.tokens_per_frame(settings.merge)
    assert len(read_clip(video, settings, capacity=tokens).frames) == len(indexes)
    monkeypatch.setattr(clip_module, "_decode", None)
    with pytest.raises(UsageError, match=r"--video-hz.*--capacity") as refused:
        read_clip(video, settings, capacity=tokens - 1)
    assert f"{tokens} tokens of {len(indexes)} frames" in str(refused.value)


def test_too_many_pixels_are_refused(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = len(sampled_frames(FRAMES, RATE_HZ, EDGE)) * 48 * 64
    assert read_clip(video, EDGE, pixels=pixels).frames.size == 3 * pixels
    monkeypatch.setattr(clip_module, "_header", lambda *given: (FRAMES, float(RATE_HZ), (1, 1)))
    with pytest.raises(UsageError, match="too large"):
        # The header lies: noticed while it is decoded
        read_clip(video, EDGE, pixels=pixels - 1)
    monkeypatch.undo()
    monkeypatch.setattr(clip_module, "_decode", None)
    with pytest.raises(UsageError, match=f"got:      {pixels} pixels"):
        read_clip(video, EDGE, pixels=pixels - 1)


def test_a_header_without_frames(video: Path, tmp_path: Path) -> None:
    path = tmp_path / "header.mp4"
    with av.open(str(video)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    written = path.read_bytes()
    path.write_bytes(written[: written.index(b"mdat") + 4])
    with pytest.raises(ObservationError, match="ends after 0 frames"):
        read_clip(path, EDGE)


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("mp4", "mpeg4"), ("mov", "mpeg4"), ("matroska", "mpeg4"), ("avi", "mpeg4"), ("mpegts", "mpeg2video")],
)
def test_containers(tmp_path: Path, kind: str, codec: str) -> None:
    path = tmp_path / "video"
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    assert abs(read_clip(path, EDGE).frames.mean() - 90) < 4


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile {}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n",
    ],
    ids=["ffconcat", "hls"],
)
def test_a_list_of_files_is_no_video(video: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "grey.mp4").write_bytes(video.read_bytes())
    path = tmp_path / "video"
    # One that names itself is opened again and again
    for named in ("grey.mp4", "video"):
        path.write_text(text.format(named))
        with pytest.raises(ObservationError, match=r"not a video.*\n  expected: mp4, mov"):
            read_clip(path, EDGE)


def test_what_can_not_be_read(video: Path, tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="there is no video"):
        read_clip(tmp_path / "absent.mp4", EDGE)
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(ObservationError, match="not a video"):
        read_clip(tmp_path / "empty.mp4", EDGE)
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:900])
    with pytest.raises(ObservationError, match="not a video"):
        read_clip(tmp_path / "cut.mp4", EDGE)
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ObservationError, match="not a video"):
        read_clip(tmp_path / "sound.wav", EDGE)
