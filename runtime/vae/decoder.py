"""Latents to frames: at once where the bundle's graph takes that many, else one latent frame after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional, Union

import numpy as np

from motedge.errors import ContractError
from motedge.runtime.engine import Engine, FloatArray
from motedge.runtime.finite import check_finite
from motedge.runtime.vae.chunks import ChunkRuns, Chunks, HostChunks
from motedge.runtime.vae.frame_count import pixel_frames

# Looked at before an engine hides it: TensorRT's clipping makes numbers of NaN
_GIVEN = "the latents of a video hold NaN or infinity"


class VideoDecoder:
    """Decodes over the engines of `vae_decoder`, or of `vae_decoder_first` and `vae_decoder_next`, or over both."""

    def __init__(
        self, whole: Optional[Engine] = None, chunks: Union[Chunks, tuple[Engine, Engine], None] = None
    ) -> None:
        """Takes over the engines; `chunks`: of the first latent frame and of the others.

        Raises:
            ContractError: no engine at all.
        """
        if whole is None and chunks is None:
            raise ContractError("a decoder without engines", expected="for whole videos, for chunks, or both")
        self._whole = whole
        self._chunks: Optional[Chunks] = HostChunks(*chunks) if isinstance(chunks, tuple) else chunks
        self._stream: Optional[ChunkRuns] = None

    def decode(self, latent: FloatArray) -> FloatArray:
        """All frames of a video.

        Args:
            latent: fp32 [C, T, h, w], normalised.

        Returns:
            fp32 [3, F, Y, X] in [-1, 1], F = 4 T - 3.

        Raises:
            ContractError: another shape, or a T above what the engines take.
            NonFiniteError: the latents hold NaN or infinity, or the decoder returned it.
        """
        frames = _latent_frames(latent)
        if self._whole is not None and (self._chunks is None or self._takes(frames)):
            check_finite(latent, _GIVEN)
            # The decoder looks back only: what is appended to a video too short for the graph changes no frame of it
            least = max(frames, self._whole.contract.profile["T"][0])
            padded = np.concatenate([latent, np.repeat(latent[:, -1:], least - frames, axis=1)], axis=1)
            context = self._whole.context({"T": least, "F": pixel_frames(least)})
            context.set_input("latent", np.ascontiguousarray(padded))
            context.run()
            result: FloatArray = context.output("frames")[:, : pixel_frames(frames)].copy()
            check_finite(result, "graph 'vae_decoder' returned NaN or infinity")
            return result
        return np.concatenate([chunk.copy() for chunk in self.stream(latent)], axis=1)

    def stream(self, latent: FloatArray) -> Iterator[FloatArray]:
        """Frames as they come: one, then four for every further latent frame. Memory does not grow with T.

        Args:
            latent: as for `decode`.

        Yields:
            fp32 [3, 1 or 4, Y, X] in [-1, 1]; a buffer that the next chunk but one overwrites.

        Raises:
            ContractError: another shape, or a bundle without the graphs for chunks.
            NonFiniteError: the latents hold NaN or infinity, or the decoder returned it.
        """
        if self._chunks is None:
            raise ContractError(
                "this bundle decodes whole videos only",
                fix="export again with --extras vae-decoder-stream",
            )
        if self._stream is None:
            self._stream = self._chunks.open(given="latent", result="frames")
        parts = (_part(latent, index) for index in range(_latent_frames(latent)))
        for index, frames in enumerate(self._stream.run(parts)):
            check_finite(frames, f"the VAE's decoder returned NaN or infinity at latent frame {index}")
            yield frames

    @property
    def streams(self) -> bool:
        """Whether `stream` can be used."""
        return self._chunks is not None

    @property
    def buffer_bytes(self) -> int:
        """Memory that `stream` holds between two chunks; 0 before its first."""
        return 0 if self._stream is None else self._stream.buffer_bytes

    def sharing(self) -> VideoDecoder:
        """A decoder over the same engines with a stream of its own: two videos do not mix. Close one of them."""
        return VideoDecoder(self._whole, self._chunks)

    def close(self) -> None:
        """Frees the engines."""
        self._stream = None
        for part in (self._whole, self._chunks):
            if part is not None:
                part.close()

    def _takes(self, frames: int) -> bool:
        low, _, high = self._whole.contract.profile["T"] if self._whole is not None else (1, 1, 0)
        return low <= frames <= high


def _part(latent: FloatArray, index: int) -> FloatArray:
    part = np.ascontiguousarray(latent[:, index : index + 1])
    check_finite(part, f"{_GIVEN} at latent frame {index}")
    return part


def _latent_frames(latent: FloatArray) -> int:
    if latent.ndim != 4 or latent.shape[1] < 1:
        raise ContractError("these are no latents of a video", expected="[C, T, h, w], T at least 1", got=latent.shape)
    return int(latent.shape[1])
