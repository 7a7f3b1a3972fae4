"""How much sound a video has: samples and latents."""

from __future__ import annotations

import math

from motedge.errors import ContractError

# Of the published tokenizer (sound_tokenizer/config.json): samples a second, and samples per latent
SAMPLE_RATE_HZ = 48000
HOP = 1920


def sound_latents(frames: int, fps: float, *, sample_rate_hz: int = SAMPLE_RATE_HZ, hop: int = HOP) -> int:
    """Latents of the sound of a video, the last one begun counted whole (diffusers 0.42.1, Cosmos3OmniPipeline).

    Args:
        frames: of the video.
        fps: frames a second.
        sample_rate_hz: of the tokenizer.
        hop: samples per latent.

    Raises:
        ContractError: no frame, or no rate.
    """
    if frames < 1 or not (math.isfinite(fps) and fps > 0):
        raise ContractError(
            "a video that is no length of time has no sound",
            expected="at least 1 frame, and frames a second above 0",
            got=f"{frames} frames, {fps} a second",
        )
    return -(-int(frames / fps * sample_rate_hz) // hop)
