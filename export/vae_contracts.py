"""The contracts of the video VAE's graphs."""

from __future__ import annotations

from motedge.bundle import Contract, TensorSpec
from motedge.checkpoint.vae_config import VaeConfig
from motedge.export.shapes import ShapeSet
from motedge.export.vae_caches import cache_inputs, cache_outputs, decoder_caches, encoder_caches

# Smallest T of the forms for a whole video: torch.export takes 1 for a constant, and the first chunk's graph takes it
_LEAST_LATENT_FRAMES = 2
_LATENT = "latent, normalised by the VAE's statistics"
_FRAMES = "RGB frames"
_PADDED = "RGB frames, each padded to the canvas by reflection"
_RANGE = "-1 to 1"


def vae_decoder(config: VaeConfig, shapes: ShapeSet) -> Contract:
    """All latent frames of a video -> its frames."""
    return Contract(
        graph="vae_decoder",
        inputs=(TensorSpec("latent", ("C", "T", "h", "w"), "fp32", _LATENT),),
        outputs=(TensorSpec("frames", (3, "F", *_pixels(config, shapes)), "fp32", _FRAMES, _RANGE),),
        sizes=_latent_sizes(config, shapes),
        profile=_whole_profile(config, shapes),
    )


def vae_decoder_first(config: VaeConfig, shapes: ShapeSet) -> Contract:
    """The first latent frame -> the first frame."""
    caches = decoder_caches(config, shapes.grid)
    return Contract(
        graph="vae_decoder_first",
        inputs=(TensorSpec("latent", ("C", 1, "h", "w"), "fp32", _LATENT),),
        outputs=(
            TensorSpec("frames", (3, 1, *_pixels(config, shapes)), "fp32", _FRAMES, _RANGE),
            *cache_outputs(caches, first=True),
        ),
        sizes=_latent_sizes(config, shapes),
        profile={},
    )


def vae_decoder_next(config: VaeConfig, shapes: ShapeSet) -> Contract:
    """A further latent frame -> four frames."""
    caches, frames = decoder_caches(config, shapes.grid), config.scale_factor_temporal
    return Contract(
        graph="vae_decoder_next",
        inputs=(TensorSpec("latent", ("C", 1, "h", "w"), "fp32", _LATENT), *cache_inputs(caches)),
        outputs=(
            TensorSpec("frames", (3, frames, *_pixels(config, shapes)), "fp32", _FRAMES, _RANGE),
            *cache_outputs(caches, first=False),
        ),
        sizes=_latent_sizes(config, shapes),
        profile={},
    )


def vae_encoder_clip(config: VaeConfig, shapes: ShapeSet) -> Contract:
    """All frames of a video -> its latent frames."""
    return Contract(
        graph="vae_encoder_clip",
        inputs=(TensorSpec("frames", (3, "F", "Y", "X"), "fp32", _PADDED, _RANGE),),
        outputs=(TensorSpec("latent", ("C", "T", "h", "w"), "fp32", _LATENT),),
        sizes={**_latent_sizes(config, shapes), **_canvas(shapes)},
        profile=_whole_profile(config, shapes),
    )


def vae_encoder_first(config: VaeConfig, shapes: ShapeSet) -> Contract:
    """The first frame -> the first latent frame."""
    caches = encoder_caches(config, shapes.canvas)
    return Contract(
        graph="vae_encoder_first",
        inputs=(TensorSpec("frames", (3, 1, "Y", "X"), "fp32", _PADDED, _RANGE),),
        outputs=(TensorSpec("latent", ("C", 1, "h", "w"), "fp32", _LATENT), *cache_outputs(caches, first=True)),
        sizes={**_latent_sizes(config, shapes), **_canvas(shapes)},
        profile={},
    )


def vae_encoder_next(config: VaeConfig, shapes: ShapeSet) -> Contract:
    """Four further frames -> a latent frame."""
    caches, frames = encoder_caches(config, shapes.canvas), config.scale_factor_temporal
    return Contract(
        graph="vae_encoder_next",
        inputs=(TensorSpec("frames", (3, frames, "Y", "X"), "fp32", _PADDED, _RANGE), *cache_inputs(caches)),
        outputs=(TensorSpec("latent", ("C", 1, "h", "w"), "fp32", _LATENT), *cache_outputs(caches, first=False)),
        sizes={**_latent_sizes(config, shapes), **_canvas(shapes)},
        profile={},
    )


def _pixels(config: VaeConfig, shapes: ShapeSet) -> tuple[int, int]:
    stride = config.scale_factor_spatial
    return shapes.grid[0] * stride, shapes.grid[1] * stride


def _latent_sizes(config: VaeConfig, shapes: ShapeSet) -> dict[str, int]:
    return {"C": config.z_dim, "h": shapes.grid[0], "w": shapes.grid[1]}


def _canvas(shapes: ShapeSet) -> dict[str, int]:
    return {"Y": shapes.canvas[0], "X": shapes.canvas[1]}


def _whole_profile(config: VaeConfig, shapes: ShapeSet) -> dict[str, tuple[int, int, int]]:
    latent = (_LEAST_LATENT_FRAMES, max(_LEAST_LATENT_FRAMES, shapes.latent_frames), shapes.max_latent_frames)
    low, opt, high = (config.scale_factor_temporal * (frames - 1) + 1 for frames in latent)
    return {"T": latent, "F": (low, opt, high)}
