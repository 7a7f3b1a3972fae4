"""How many frames a video has on either side of the VAE: one, and four for each further latent frame."""

from __future__ import annotations

import logging

from motedge.errors import ContractError

# Wan 2.2 (vae/config.json, scale_factor_temporal)
FRAMES_PER_LATENT = 4
_log = logging.getLogger(__name__)


def latent_frames(frames: int) -> int:
    """Latent frames T of a video of `frames` = 4 k + 1.

    Raises:
        ContractError: another number of frames.
    """
    if frames < 1 or (frames - 1) % FRAMES_PER_LATENT:
        below = max(1, frames - (frames - 1) % FRAMES_PER_LATENT)
        raise ContractError(
            "a video of this length has no latent",
            expected=f"{FRAMES_PER_LATENT} k + 1 frames, such as {below} or {below + FRAMES_PER_LATENT}",
            got=frames,
            why=f"the first frame is encoded by itself, the others {FRAMES_PER_LATENT} at a time",
            fix="cut the video, or repeat its last frame",
        )
    return 1 + (frames - 1) // FRAMES_PER_LATENT


def pixel_frames(latents: int) -> int:
    """Frames F of a video of `latents` latent frames; ContractError for none."""
    if latents < 1:
        raise ContractError("a video has no latent frames", expected="at least 1", got=latents)
    return 1 + (latents - 1) * FRAMES_PER_LATENT


def round_frames(frames: int) -> int:
    """The next lower 4 k + 1, as the reference pipeline rounds (diffusers 0.42.1, Cosmos3OmniPipeline); warns.

    Raises:
        ContractError: less than one frame.
    """
    if frames < 1:
        raise ContractError("a video needs a frame", expected="at least 1", got=frames)
    rounded = frames - (frames - 1) % FRAMES_PER_LATENT
    if rounded != frames:
        _log.warning("%d frames are asked for, %d are made: videos have 4 k + 1 frames", frames, rounded)
    return rounded
