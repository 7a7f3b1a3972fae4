"""The video VAE's configuration: vae/config.json as a frozen dataclass (Wan2.2 form, residual)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motedge.errors import CheckpointError


@dataclass(frozen=True)
class VaeConfig:
    """The fields of vae/config.json that decide about shapes and arithmetic. Names are the file's own."""

    # Width of the encoder's first block; block i has base_dim * dim_mult[i]
    base_dim: int
    # Width unit of the decoder, which is larger than the encoder
    decoder_base_dim: int
    # Latent channels, C
    z_dim: int
    # Per-channel statistics: the normalised latent is (z - latents_mean) / latents_std
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    # Whether down block i also halves time (the file spells it so)
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    # Channels after the 2 x 2 pixel patchify: 3 colours * patch_size^2
    in_channels: int = 12
    out_channels: int = 12
    patch_size: int = 2
    is_residual: bool = True
    # Pixels per latent cell, frames per latent frame
    scale_factor_spatial: int = 16
    scale_factor_temporal: int = 4

    def __post_init__(self) -> None:
        if not self.is_residual:
            raise _contradiction("is_residual", "true (the Wan2.2 form)", self.is_residual)
        for name in ("latents_mean", "latents_std"):
            if len(getattr(self, name)) != self.z_dim:
                raise _contradiction(name, f"z_dim={self.z_dim} numbers", f"{len(getattr(self, name))} numbers")
        if min(self.latents_std) <= 0:
            raise _contradiction("latents_std", "positive numbers", min(self.latents_std))
        if len(self.temperal_downsample) != len(self.dim_mult) - 1:
            raise _contradiction("temperal_downsample", f"{len(self.dim_mult) - 1} flags", self.temperal_downsample)
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) != 3 * self.patch_size**2:
                raise _contradiction(name, f"3 * patch_size^2 = {3 * self.patch_size**2}", getattr(self, name))

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Channels before the first down block and after each."""
        return (self.base_dim, *(self.base_dim * m for m in self.dim_mult))

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels before the first up block and after each."""
        return tuple(self.decoder_base_dim * m for m in (self.dim_mult[-1], *reversed(self.dim_mult)))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> VaeConfig:
        """Parses a vae/config.json.

        Raises:
            CheckpointError: another VAE's config, a missing field, or fields that contradict each other.
        """
        if raw.get("_class_name", "AutoencoderKLWan") != "AutoencoderKLWan":
            raise _contradiction("_class_name", "AutoencoderKLWan", raw["_class_name"])
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            value = raw.get(field.name)
            if value is None and field.name == "decoder_base_dim":
                value = raw.get("base_dim")
            if value is None and field.default is dataclasses.MISSING:
                raise _contradiction(field.name, "a value", "none")
            if value is not None:
                values[field.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The inverse of `from_dict`, with the class name that loaders look for."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"_class_name": "AutoencoderKLWan", **plain, "attn_scales": [], "dropout": 0.0}


def _contradiction(name: str, expected: object, got: object) -> CheckpointError:
    return CheckpointError(
        f"vae/config.json: {name} is not that of a Wan2.2 VAE",
        expected=expected,
        got=repr(got),
        fix="take the file that belongs to the checkpoint",
    )
