"""Configurations by family and size: `full` has the published values, `small` and `tiny` the same structure shrunk.

head_dim stays 128 and the position, patch and action constants stay as published, so that a small checkpoint runs
through exactly the code that a real one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from motedge.checkpoint.config import FAMILIES, ModelConfig
from motedge.checkpoint.sound_config import SoundConfig
from motedge.checkpoint.vae_config import VaeConfig
from motedge.checkpoint.vision_config import QWEN3_VL, SIGLIP2, VisionConfig
from motedge.errors import UsageError, closest

SIZES = ("tiny", "small", "full")
# Qwen's special tokens have ids up to 151668, so that no Nano or Super can have a smaller vocabulary.
QWEN_VOCAB = 151936

# family -> size -> (hidden, query heads, key heads, feed-forward width, layers, vocabulary)
_TRANSFORMER: dict[str, dict[str, tuple[int, int, int, int, int, int]]] = {
    "edge": {
        "tiny": (256, 2, 1, 512, 3, 1024),
        "small": (512, 4, 2, 2304, 4, 4096),
        "full": (2048, 16, 8, 9216, 28, 131072),
    },
    "nano": {
        "tiny": (512, 4, 1, 768, 3, QWEN_VOCAB),
        "small": (512, 4, 1, 1536, 4, QWEN_VOCAB),
        "full": (4096, 32, 8, 12288, 36, QWEN_VOCAB),
    },
    "super": {
        "tiny": (256, 8, 1, 512, 3, QWEN_VOCAB),
        "small": (512, 8, 1, 1536, 4, QWEN_VOCAB),
        "full": (5120, 64, 8, 25600, 64, QWEN_VOCAB),
    },
}
# size -> (encoder base width, decoder base width)
_VAE = {"tiny": (8, 8), "small": (32, 32), "full": (160, 256)}
# size -> (decoder width, encoder width); the multiples and strides stay, and with them the 1920 samples a latent
_SOUND = {"tiny": (4, 8), "small": (16, 16), "full": (320, 192)}
# size -> (width, feed-forward width, layers, heads); the published ViT has heads of 72
_VISION = {"tiny": (144, 288, 4, 2), "small": (288, 576, 6, 4), "full": (1152, 4304, 27, 16)}

# Normalised latent = (z - mean) / std: vae/config.json of Wan-AI/Wan2.2-TI2V-5B-Diffusers
# fmt: off
LATENTS_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
LATENTS_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
# fmt: on


@dataclass(frozen=True)
class Preset:
    """The configurations of one checkpoint."""

    transformer: ModelConfig
    vae: VaeConfig
    vision: VisionConfig
    # None for Edge, which makes no sound
    sound: SoundConfig | None = None


def preset(family: str, size: str) -> Preset:
    """The configurations of a family in a size.

    Raises:
        UsageError: an unknown family or size; the message offers the closest.
    """
    if family not in FAMILIES:
        raise UsageError("unknown family", expected=" or ".join(FAMILIES), got=family, fix=closest(family, FAMILIES))
    if size not in SIZES:
        raise UsageError("unknown size", expected=" or ".join(SIZES), got=size, fix=closest(size, SIZES))
    return Preset(_transformer(family, size), _vae(size), _vision(family, size), _sound(family, size))


def _transformer(family: str, size: str) -> ModelConfig:
    hidden, query, key, wide, layers, vocab = _TRANSFORMER[family][size]
    edge = family == "edge"
    extra: dict[str, Any] = {
        "attention_dropout": 0.0,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    }
    return ModelConfig(
        hidden_size=hidden,
        intermediate_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=query,
        num_key_value_heads=key,
        vocab_size=vocab,
        hidden_act="relu2" if edge else "silu",
        rms_norm_eps=1e-5 if edge else 1e-6,
        rope_theta=1e8 if edge else 5e6,
        qk_norm_for_text=not edge,
        use_und_k_norm_for_gen=edge,
        sound_gen=not edge,
        sound_dim=None if edge else 64,
        extra=extra,
    )


def _vae(size: str) -> VaeConfig:
    encoder, decoder = _VAE[size]
    return VaeConfig(
        base_dim=encoder,
        decoder_base_dim=decoder,
        z_dim=len(LATENTS_MEAN),
        latents_mean=LATENTS_MEAN,
        latents_std=LATENTS_STD,
    )


def _sound(family: str, size: str) -> SoundConfig | None:
    if family == "edge":
        return None
    decoder, encoder = _SOUND[size]
    return SoundConfig(dec_dim=decoder, enc_dim=encoder)


def _vision(family: str, size: str) -> VisionConfig:
    width, wide, layers, heads = _VISION[size]
    full = size == "full"
    out = _TRANSFORMER[family][size][0]
    if family == "edge":
        return VisionConfig(
            model_type=SIGLIP2,
            hidden_size=width,
            intermediate_size=wide,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_positions=256,
            projector_hidden_size=11520 if full else 4 * width,
            out_hidden_size=out,
        )
    return VisionConfig(
        model_type=QWEN3_VL,
        hidden_size=width,
        intermediate_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_positions=2304,
        projector_hidden_size=4 * width,
        out_hidden_size=out,
        temporal_patch_size=2,
        deepstack_indexes=(8, 16, 24) if full else (0, 1, 2),
    )
