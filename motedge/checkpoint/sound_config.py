"""The audio tokenizer's configuration: sound_tokenizer/config.json as a frozen dataclass (Nano and Super)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motedge.errors import CheckpointError

SOUND_CLASS = "Cosmos3AVAEAudioTokenizer"
# The only form that diffusers 0.42.1 accepts, too: field -> its value
_FIXED: dict[str, Any] = {
    "model_type": "autoencoder_v2",
    "use_wav_as_input": True,
    "enc_type": "spec_convnext",
    "dec_type": "oobleck",
    "dec_use_snake": True,
    "dec_final_tanh": False,
    "dec_anti_aliasing": False,
    "dec_use_nearest_upsample": False,
    "dec_use_tanh_at_final": False,
    "bottleneck_type": "vae",
    "activation": "snakebeta",
    "snake_logscale": True,
    "anti_aliasing": False,
    "use_cuda_kernel": False,
    "causal": False,
    "padding_mode": "zeros",
    "latent_mean": None,
    "latent_std": None,
}


@dataclass(frozen=True)
class SoundConfig:
    """The fields of sound_tokenizer/config.json that decide about shapes and arithmetic. Names are the file's own.

    Defaults are the published values (class of the same name in diffusers 0.42.1).
    """

    # Samples per second of each channel
    sampling_rate: int = 48000
    # Channels of the waveform: left and right
    dec_out_channels: int = 2
    # Latent channels; the transformer's sound_dim
    vocoder_input_dim: int = 64
    # Width unit of the decoder; its blocks have dec_dim * dec_c_mults, the last first
    dec_dim: int = 320
    dec_c_mults: tuple[int, ...] = (1, 2, 4, 8, 16)
    # Upsampling of the blocks, the last first
    dec_strides: tuple[int, ...] = (2, 4, 5, 6, 8)
    # Samples per latent frame, where it is not the product of dec_strides
    hop_size: int | None = None
    # The encoder's, which generation does not need
    stereo: bool = True
    input_channels: int = 1
    enc_dim: int = 192
    enc_num_blocks: int = 2
    enc_n_fft: int = 64
    enc_hop_length: int = 16
    enc_latent_dim: int = 128
    enc_c_mults: tuple[int, ...] = (1, 2, 4)
    enc_strides: tuple[int, ...] = (4, 5, 6)
    enc_use_snake: bool = True

    def __post_init__(self) -> None:
        for name in ("sampling_rate", "dec_out_channels", "vocoder_input_dim", "dec_dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise _contradiction(name, "a positive whole number", value)
        for side in ("dec", "enc"):
            multiples, strides = getattr(self, f"{side}_c_mults"), getattr(self, f"{side}_strides")
            if len(multiples) != len(strides) or not multiples or min(*multiples, *strides) < 1:
                raise _contradiction(f"{side}_c_mults", f"as many as {side}_strides={strides}, positive", multiples)
        # A transposed convolution of another hop would give another number of samples than the latents stand for
        if self.hop_size not in (None, math.prod(self.dec_strides)):
            raise _contradiction("hop_size", math.prod(self.dec_strides), self.hop_size)

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.dec_strides)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels before the first block of the decoder and after each."""
        return (*(self.dec_dim * m for m in reversed(self.dec_c_mults)), self.dec_dim)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> SoundConfig:
        """Parses a sound_tokenizer/config.json.

        Raises:
            CheckpointError: another tokenizer's config, or fields that contradict each other.
        """
        if raw.get("_class_name", SOUND_CLASS) != SOUND_CLASS:
            raise _contradiction("_class_name", SOUND_CLASS, raw["_class_name"])
        for name, value in _FIXED.items():
            if raw.get(name, value) != value:
                raise _contradiction(name, repr(value), raw[name])
        bottleneck = raw.get("bottleneck") or {}
        if bottleneck.get("type", "vae") != "vae":
            raise _contradiction("bottleneck", "one of type 'vae'", bottleneck)
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            value = raw.get(field.name)
            if value is not None:
                values[field.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The inverse of `from_dict`, with the class name that loaders look for."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"_class_name": SOUND_CLASS, **_FIXED, **plain}


def _contradiction(name: str, expected: object, got: object) -> CheckpointError:
    return CheckpointError(
        f"sound_tokenizer/config.json: {name} is not that of Cosmos 3's audio tokenizer",
        expected=expected,
        got=repr(got),
        fix="take the file that belongs to the checkpoint",
    )
