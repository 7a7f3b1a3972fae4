"""Videos to latents and back, whole or in chunks, over the engines of a bundle. numpy alone."""

from motedge.runtime.vae.decoder import VideoDecoder
from motedge.runtime.vae.encoder import VideoEncoder
from motedge.runtime.vae.frame_count import latent_frames, pixel_frames, round_frames
from motedge.runtime.vae.loader import open_decoder, open_encoder
from motedge.runtime.vae.pixels import to_uint8

__all__ = [
    "VideoDecoder",
    "VideoEncoder",
    "latent_frames",
    "open_decoder",
    "open_encoder",
    "pixel_frames",
    "round_frames",
    "to_uint8",
]
