"""Frames to latents: at once where the bundle's graph takes that many, else one frame and then four at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Optional, Union

import numpy as np

from motedge.errors import ContractError
from motedge.runtime.engine import Engine, FloatArray
from motedge.runtime.finite import check_finite
from motedge.runtime.policy.resize import Image
from motedge.runtime.vae.chunks import ChunkRuns, Chunks, HostChunks
from motedge.runtime.vae.frame_count import FRAMES_PER_LATENT, latent_frames
from motedge.runtime.vae.pixels import from_uint8


class VideoEncoder:
    """Encodes over the engine of `vae_encoder_clip`, or those of `vae_encoder_first` and `vae_encoder_next`, or all."""

    def __init__(
        self, whole: Optional[Engine] = None, chunks: Union[Chunks, tuple[Engine, Engine], None] = None
    ) -> None:
        """Takes over the engines; `chunks`: of the first frame and of the others.

        Raises:
            ContractError: no engine at all.
        """
        self._whole = whole
        self._chunks: Optional[Chunks] = HostChunks(*chunks) if isinstance(chunks, tuple) else chunks
        one = self._whole if self._whole is not None else self._chunks
        if one is None:
            raise ContractError("an encoder without engines", expected="for whole videos, for chunks, or both")
        self._stream: Optional[ChunkRuns] = None
        sizes = one.contract.sizes
        self._canvas, self._grid = (sizes["Y"], sizes["X"]), (sizes["h"], sizes["w"])
        self._channels = sizes["C"]

    def encode(self, frames: Sequence[Image]) -> FloatArray:
        """The latents of a video.

        Args:
            frames: 4 k + 1 frames, uint8 [rows, columns, 3] each: a list, or an array [F, rows, columns, 3]. They are
                padded to the canvas; the latent of the padding is cut off.

        Returns:
            fp32 [C, T, h, w], normalised, T = k + 1.

        Raises:
            ContractError: another number or size of frames than the engines take.
            NonFiniteError: the encoder returned NaN or infinity.
        """
        latents = latent_frames(len(frames))
        if self._whole is not None and (self._chunks is None or self._takes(latents)):
            context = self._whole.context({"T": latents, "F": len(frames)})
            context.set_input("frames", self._prepare(frames))
            context.run()
            result: FloatArray = context.output("latent").copy()
            check_finite(result, "graph 'vae_encoder_clip' returned NaN or infinity")
            return result
        result = np.empty((self._channels, latents, *self._grid), np.float32)
        for index, latent in enumerate(self.stream(frames)):
            result[:, index : index + 1] = latent
        return result

    def stream(self, frames: Iterable[Image]) -> Iterator[FloatArray]:
        """Latents as they come: after the first frame, then after every four. Memory does not grow with the video.

        Args:
            frames: as for `encode`, one after the other.

        Yields:
            fp32 [C, 1, h, w]; a buffer that the next chunk but one overwrites.

        Raises:
            ContractError: a frame of another size, a video that ends within four frames, or a bundle without the
                graphs for chunks.
            NonFiniteError: the encoder returned NaN or infinity.
        """
        if self._chunks is None:
            raise ContractError(
                "this bundle encodes whole videos only", fix="export again with --extras vae-encoder-stream"
            )
        if self._stream is None:
            self._stream = self._chunks.open(given="frames", result="latent")
        for index, latent in enumerate(self._stream.run(self._chunks_of(frames))):
            check_finite(latent, f"the VAE's encoder returned NaN or infinity at latent frame {index}")
            yield latent

    @property
    def buffer_bytes(self) -> int:
        """Memory that `stream` holds between two chunks; 0 before its first."""
        return 0 if self._stream is None else self._stream.buffer_bytes

    def close(self) -> None:
        """Frees the engines."""
        self._stream = None
        for part in (self._whole, self._chunks):
            if part is not None:
                part.close()

    def _chunks_of(self, frames: Iterable[Image]) -> Iterator[FloatArray]:
        """The first frame, then four at a time, made ready; ContractError if some are left over."""
        waiting: list[Image] = []
        count = 0
        for count, frame in enumerate(frames, start=1):
            waiting.append(frame)
            if len(waiting) == (1 if count == 1 else FRAMES_PER_LATENT):
                yield self._prepare(waiting)
                waiting = []
        latent_frames(count)

    def _prepare(self, frames: Sequence[Image]) -> FloatArray:
        pixels = np.empty((3, len(frames), *self._canvas), np.float32)
        from_uint8(frames, self._canvas, self._grid, pixels)
        return pixels

    def _takes(self, latents: int) -> bool:
        low, _, high = self._whole.contract.profile["T"] if self._whole is not None else (1, 1, 0)
        return low <= latents <= high
