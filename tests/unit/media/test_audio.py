"""Waveforms in files, read back: WAV sample by sample, AAC beside a picture that stays as it was."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from motedge.errors import UsageError
from motedge.media.audio import add_sound, write_wav
from motedge.media.video import read_video, write_video

RATE = 48000


def _tone(seconds: float) -> np.ndarray:
    """440 Hz left, 880 Hz right, each at half of full scale."""
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * np.array([[440.0], [880.0]]) * time)).astype(np.float32)


def _video(path: Path, frames: int, fps: int) -> bytes:
    """Writes a small mp4; returns its packets' bytes."""
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install motedge[video]")
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(frames):
            picture = np.full((48, 64, 3), 8 * index, np.uint8)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode(None))
    return _packets(path)


def _packets(path: Path) -> bytes:
    import av

    with av.open(str(path)) as source:
        return b"".join(bytes(packet) for packet in source.demux(video=0) if packet.dts is not None)


def test_wav(tmp_path: Path) -> None:
    waveform = _tone(0.01)
    waveform[:, :3] = [[1.0, -1.0, 1.5], [0.0, -2.0, 0.5]]
    write_wav(tmp_path / "a.wav", waveform, RATE)
    with wave.open(str(tmp_path / "a.wav")) as stream:
        assert (stream.getnchannels(), stream.getsampwidth(), stream.getframerate()) == (2, 2, RATE)
        read = np.frombuffer(stream.readframes(stream.getnframes()), "<i2").reshape(-1, 2).T
    assert read[:, :3].tolist() == [[32767, -32767, 32767], [0, -32767, 16384]]
    np.testing.assert_allclose(read[:, 3:] / 32767, waveform[:, 3:], atol=0.5001 / 32767)


def test_the_mono_waveform_stays_mono(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", _tone(0.01)[:1], 16000)
    with wave.open(str(tmp_path / "a.wav")) as stream:
        assert (stream.getnchannels(), stream.getframerate(), stream.getnframes()) == (1, 16000, 480)


@pytest.mark.parametrize("onto_itself", [False, True])
def test_aac_beside_the_picture(tmp_path: Path, onto_itself: bool) -> None:
    before = _video(tmp_path / "a.mp4", 24, 12)
    target = tmp_path / ("a.mp4" if onto_itself else "b.mp4")
    add_sound(tmp_path / "a.mp4", target, _tone(2.02), RATE)
    import av

    assert _packets(target) == before
    with av.open(str(target)) as source:
        sound = source.streams.audio[0]
        assert (sound.codec_context.name, sound.rate, sound.layout.name) == ("aac", RATE, "stereo")
        assert source.streams.video[0].frames == 24
        # Cut where the picture ends, to a block of the encoder
        assert float(sound.duration * sound.time_base) == pytest.approx(2.0, abs=1024 / RATE)
        read = np.concatenate([frame.to_ndarray() for frame in source.decode(sound)], axis=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == (["a.mp4"] if onto_itself else ["a.mp4", "b.mp4"])
    # Away from both ends, where the tone is cut off
    middle = read[:, RATE // 2 : RATE + RATE // 2]
    assert np.abs(np.fft.rfft(middle)).argmax(axis=1).tolist() == [440, 880]
    np.testing.assert_allclose(np.sqrt((middle**2).mean(axis=1)), np.sqrt(0.125), atol=0.01)


def test_the_picture_beside_the_sound_can_be_decoded(tmp_path: Path) -> None:
    """H.264 needs its header, which PyAV 14 loses."""
    pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", [np.zeros((9, 32, 48, 3), np.uint8)], 12.0)
    add_sound(tmp_path / "a.mp4", tmp_path / "a.mp4", _tone(0.5), RATE)
    assert len(read_video(tmp_path / "a.mp4", 99).frames) == 9


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (np.zeros(100, np.float32), RATE, "no waveform"),
        (np.zeros((100, 2), np.float32), RATE, "in this order"),
        (np.zeros((2, 0), np.float32), RATE, "no waveform"),
        (np.full((2, 100), np.nan, np.float32), RATE, "NaN"),
        (np.zeros((2, 100), np.float32), 0, "rate is wrong"),
    ],
)
def test_bad_waveforms(tmp_path: Path, waveform: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_wav(tmp_path / "a.wav", waveform, rate)
    assert list(tmp_path.iterdir()) == []


def test_videos_that_get_no_sound(tmp_path: Path) -> None:
    _video(tmp_path / "a.mp4", 3, 12)
    with pytest.raises(UsageError, match="one or two channels"):
        add_sound(tmp_path / "a.mp4", tmp_path / "b.mp4", np.zeros((3, 100), np.float32), RATE)
    (tmp_path / "no.mp4").write_bytes(b"no video" * 100)
    write_wav(tmp_path / "sound.wav", _tone(0.1), RATE)
    for name, message in (("no.mp4", "can't be given sound"), ("none.mp4", "can't be given"), ("sound.wav", "picture")):
        with pytest.raises(UsageError, match=message):
            add_sound(tmp_path / name, tmp_path / "b.mp4", _tone(0.1), RATE)
    with pytest.raises(UsageError, match="can't be given sound"):
        add_sound(tmp_path / "a.mp4", tmp_path / "b.mp4", _tone(0.1), 47999)
    assert not (tmp_path / "b.mp4").exists() and not (tmp_path / "b.mp4.partial").exists()
