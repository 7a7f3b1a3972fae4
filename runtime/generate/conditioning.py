"""The given pictures of a request as clean latents, and which latent frames they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from motedge.errors import ContractError, UsageError
from motedge.runtime.engine import Engine, FloatArray
from motedge.runtime.finite import check_finite
from motedge.runtime.generate.fitting import cover, fit
from motedge.runtime.generate.request import GenerateRequest
from motedge.runtime.generate.shape import GenerateShape
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.letterbox import stretch
from motedge.runtime.policy.resize import Image
from motedge.runtime.vae.encoder import VideoEncoder
from motedge.runtime.vae.frame_count import latent_frames, pixel_frames

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conditioning:
    """What of the video is given."""

    # fp32 [C, T, h, w], normalised; zero where nothing is given
    vision_clean: FloatArray
    # fp32 [T], 1 = to be generated
    vision_noisy: FloatArray


class Conditioner:
    """Encodes what is given. Of a video only as many frames as its clean latents need: the VAE looks back alone."""

    def __init__(self, shape: GenerateShape, image_encoder: Engine, open_encoder: Callable[[], VideoEncoder]) -> None:
        """`open_encoder`: of videos, called when the first one is given; whoever made it closes it."""
        self._shape, self._open_encoder = shape, open_encoder
        self._image = image_encoder.context({})

    def encode(self, request: GenerateRequest, frames: int) -> Conditioning:
        """The clean latents of a request of that many pixel frames.

        Raises:
            UsageError: a picture of another shape than the bundle's, a video that is too short, latent frames that the
                video does not have.
            BundleError: the bundle has no encoder for videos.
            NonFiniteError: the encoder returned NaN or infinity.
        """
        _check_pictures(request)
        count = latent_frames(frames)
        clean = np.zeros((self._shape.channels, count, *self._shape.grid), np.float32)
        noisy = np.ones(count, np.float32)
        if request.mode == "video2video":
            kept = self._kept(request, count)
            latents = self._video(self._extension(request, max(kept)))
            clean[:, list(kept)], noisy[list(kept)] = latents[:, list(kept)], 0
        elif request.mode == "inverse_dynamics":
            clean[...], noisy[:] = self._video(self._observed(request, frames)), 0
        elif request.image is not None:
            clean[:, :1], noisy[0] = self._first(request), 0
        return Conditioning(clean, noisy)

    def _first(self, request: GenerateRequest) -> FloatArray:
        """The latent of the first frame, fp32 [C, 1, h, w]."""
        image = request.image
        if image is None:
            raise ContractError("there is no first frame", expected="an image", got="none")
        shown = self._fitted(image) if request.acts else cover(image, self._shape.size)
        self._image.set_input("image", normalise(pad_canvas(shown, self._shape.canvas)))
        self._image.run()
        latent: FloatArray = self._image.output("latent").copy()
        check_finite(latent, "graph 'vae_encoder' returned NaN or infinity")
        return latent

    def _video(self, frames: Sequence[Image]) -> FloatArray:
        if len(frames) == 1:
            # One frame is one image, whose encoder every bundle has
            self._image.set_input("image", normalise(pad_canvas(frames[0], self._shape.canvas)))
            self._image.run()
            return np.asarray(self._image.output("latent"), np.float32).copy()
        return self._open_encoder().encode(frames)

    def _kept(self, request: GenerateRequest, count: int) -> tuple[int, ...]:
        kept = tuple(sorted(set(request.condition_frames)))
        if kept[-1] >= count or len(kept) == count:
            raise UsageError(
                "the latent frames to keep do not go with the video's length",
                expected=f"some of 0 to {count - 1}, for {pixel_frames(count)} frames",
                got=list(kept),
                fix="keep fewer, or make more frames",
            )
        return kept

    def _extension(self, request: GenerateRequest, last: int) -> list[Image]:
        """The frames that video2video goes on from, up to latent frame `last`; the last one repeated if too few."""
        needed, given = pixel_frames(last + 1), list(request.video or ())
        taken = given[:needed] if request.keep == "first" else given[-needed:]
        if len(taken) < needed:
            _log.warning("the video has %d frames, %d are needed: its last one is repeated", len(taken), needed)
        rows, columns = taken[0].shape[:2]
        size = self._shape.size
        if abs(columns / rows / (size[1] / size[0]) - 1) > 0.02:
            _log.warning("the video is stretched from %dx%d to %dx%d", columns, rows, size[1], size[0])
        frames = [stretch(frame, size) for frame in taken]
        return frames + frames[-1:] * (needed - len(frames))

    def _observed(self, request: GenerateRequest, frames: int) -> list[Image]:
        """The frames whose actions are asked for."""
        given = list(request.video or ())
        if len(given) < frames:
            raise UsageError(
                "the video is too short",
                expected=f"{frames} frames",
                got=len(given),
                fix=f"ask for {pixel_frames(latent_frames(len(given) - (len(given) - 1) % 4))} frames",
            )
        return [self._fitted(frame) for frame in given[:frames]]

    def _fitted(self, image: Image) -> Image:
        return fit(image, self._shape.canvas, self._shape.content)


def _check_pictures(request: GenerateRequest) -> None:
    """Refuses what is no picture, and videos whose frames differ in size."""
    if request.video is not None and not len(request.video):
        raise UsageError("the video is empty", expected="frames, uint8 [rows, columns, 3]", got="none")
    pictures = [*(() if request.image is None else (request.image,)), *(request.video or ())]
    for picture in pictures:
        sound = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3
        if not sound or picture.shape[2] != 3 or picture.shape != pictures[-1].shape:
            raise UsageError(
                "this is no picture, or not of the size of the others",
                expected="uint8 [rows, columns, 3], all of one size",
                got=f"{getattr(picture, 'dtype', type(picture).__name__)} {getattr(picture, 'shape', '')}",
            )
