"""Waveforms to files: WAV by the standard library, and AAC beside the picture of an mp4 through PyAV."""

from __future__ import annotations

import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motedge.errors import UsageError
from motedge.files import PathLike, atomic_path
from motedge.media.packages import require_av

# 16 bits, symmetric: -1 is -32767
_FULL_SCALE = 32767
_LAYOUTS = {1: "mono", 2: "stereo"}
_AAC_BITS_PER_S = 192_000


def write_wav(target: PathLike, waveform: NDArray[np.float32], sample_rate_hz: int) -> None:
    """Writes 16-bit PCM; the file appears whole or not at all.

    Args:
        target: the file.
        waveform: fp32 [channels, samples] in [-1, 1]; what is beyond is clipped.
        sample_rate_hz: samples a second of each channel.

    Raises:
        UsageError: another shape, NaN or infinity, or no rate.
        HostError: the disk is full or not writable.
    """
    levels = np.rint(_checked(waveform, sample_rate_hz) * np.float32(_FULL_SCALE))
    with atomic_path(target) as partial, wave.open(str(partial), "wb") as stream:
        stream.setnchannels(levels.shape[0])
        stream.setsampwidth(2)
        stream.setframerate(sample_rate_hz)
        stream.writeframes(levels.T.astype("<i2").tobytes())


def add_sound(video: PathLike, target: PathLike, waveform: NDArray[np.float32], sample_rate_hz: int) -> None:
    """Copies an mp4's picture unchanged, with the waveform beside it as AAC. `target` may be `video` itself.

    The sound is cut where the picture ends: the last latent of a sound is counted whole, so it may be longer.

    Args:
        video: an mp4 with one video stream.
        target: the mp4 to write; it appears whole or not at all.
        waveform: as for `write_wav`, one or two channels.
        sample_rate_hz: samples a second of each channel.

    Raises:
        UsageError: a waveform that can't be written, or a file without a picture that can be read.
        MissingPackageError: PyAV is not installed.
        HostError: the disk is full or not writable.
    """
    av, samples = require_av("to write mp4 files"), _checked(waveform, sample_rate_hz)
    if samples.shape[0] not in _LAYOUTS:
        raise UsageError("an mp4 gets one or two channels of sound", got=f"{samples.shape[0]} channels")
    try:
        with av.open(str(video)) as source:
            if not source.streams.video:
                raise UsageError(f"{video} has no picture", expected="an mp4 with a video stream")
            picture = source.streams.video[0]
            samples = samples[:, : _samples_of(picture, sample_rate_hz, samples.shape[1])]
            with atomic_path(target) as partial, av.open(str(partial), "w", format="mp4") as sink:
                copied = sink.add_stream_from_template(picture)
                sound = sink.add_stream("aac", rate=sample_rate_hz, layout=_LAYOUTS[samples.shape[0]])
                sound.bit_rate = _AAC_BITS_PER_S
                for packet in source.demux(picture):
                    # The last packet of a demuxer is empty
                    if packet.dts is not None:
                        packet.stream = copied
                        sink.mux(packet)
                for frame in (_frame(av, samples, sample_rate_hz), None):
                    sink.mux(sound.encode(frame))
    except av.error.FFmpegError as error:
        raise UsageError(f"{video} can't be given sound", expected="an mp4 that plays", got=str(error)) from error


def _samples_of(picture: Any, sample_rate_hz: int, most: int) -> int:
    """Samples until the picture ends; all of them where the file does not tell."""
    if picture.duration is None or picture.time_base is None:
        return most
    until: int = round(picture.duration * picture.time_base * sample_rate_hz)
    return min(most, until)


def _frame(av: Any, samples: NDArray[np.float32], sample_rate_hz: int) -> Any:
    """All samples as one frame of the encoder's own format, which PyAV cuts into its blocks of 1,024."""
    planar = np.ascontiguousarray(samples)
    frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout=_LAYOUTS[samples.shape[0]])
    frame.sample_rate = sample_rate_hz
    frame.pts = 0
    return frame


def _checked(waveform: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float32]:
    """The waveform within [-1, 1]."""
    if waveform.ndim != 2 or 0 in waveform.shape or waveform.shape[0] > waveform.shape[1]:
        raise UsageError("this is no waveform", expected="[channels, samples], in this order", got=waveform.shape)
    if not np.isfinite(waveform).all():
        raise UsageError("the waveform holds NaN or infinity", expected="finite numbers")
    if sample_rate_hz < 1:
        raise UsageError("the sample rate is wrong", expected="at least 1 Hz", got=sample_rate_hz)
    return np.clip(waveform, -1.0, 1.0).astype(np.float32)
