"""The trained model as a checkpoint in the hub's layout, bf16, and back into the training's modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from motedge.checkpoint.keys import Shape, transformer_shapes
from motedge.checkpoint.policy_metadata import PolicyMetadata
from motedge.checkpoint.presets import Preset
from motedge.checkpoint.random_weights import DTYPE, bf16_bits, random_chunks
from motedge.checkpoint.reader import Checkpoint, TensorStore
from motedge.checkpoint.repository_files import write_repository_files, write_root_index
from motedge.checkpoint.safetensors_stream import data_bytes, write_component
from motedge.checkpoint.synthetic_tokenizer import write_tokenizer
from motedge.checkpoint.tokenizer_files import FOLDER as TOKENIZER_FOLDER
from motedge.checkpoint.vae_keys import vae_shapes
from motedge.checkpoint.vision_keys import vision_shapes
from motedge.errors import DataError
from motedge.files import write_json

_FAMILY = "edge"


def write_small(
    root: Path,
    preset: Preset,
    transformer: Mapping[str, Tensor],
    vae: Mapping[str, Tensor],
    policy: PolicyMetadata,
    *,
    seed: int = 0,
) -> None:
    """Writes the checkpoint's files into `root`; the picture encoder, which is not trained, is random.

    Args:
        root: the folder; staging is the caller's matter.
        preset: the configurations.
        transformer: key -> value, as `Towers` names them.
        vae: key -> value, as `Vae` names them.
        policy: how it acts.
        seed: of the picture encoder.

    Raises:
        DataError: a weight is NaN or infinite.
        HostError: the disk is full or not writable.
    """
    write_repository_files(root, _FAMILY, "base", preset)
    write_json(root / "checkpoint.json", {"policy": vars(policy)})
    write_tokenizer(root / TOKENIZER_FOLDER, _FAMILY, preset.transformer.vocab_size)
    parts: dict[str, tuple[str, dict[str, Shape]]] = {
        "transformer": ("diffusion_pytorch_model", transformer_shapes(preset.transformer)),
        "vae": ("diffusion_pytorch_model", vae_shapes(preset.vae)),
        "vision_encoder": ("model", vision_shapes(preset.vision)),
    }
    values = {"transformer": transformer, "vae": vae}
    maps = {}
    for name, (stem, shapes) in parts.items():

        def chunks(key: str, shape: Shape, part: str = name) -> Iterator[np.ndarray]:
            if part in values:
                yield _bits(key, shape, values[part][key])
            else:
                yield from random_chunks(key, shape, seed)

        maps[name] = write_component(root / name, stem, shapes, DTYPE, chunks)
    total = sum(data_bytes(shapes, DTYPE) for _, shapes in parts.values())
    write_root_index(root, maps["transformer"], maps["vision_encoder"], total)


def load_module(module: nn.Module, checkpoint: Checkpoint, component: str) -> None:
    """Fills `Towers` ("transformer") or `Vae` ("vae") from a checkpoint.

    Raises:
        CheckpointError: a tensor is missing, or holds NaN or infinity.
    """
    store: TensorStore = getattr(checkpoint, component)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.copy_(store.finite_tensor(key).float().reshape(parameter.shape))


def with_statistics(preset: Preset, mean: tuple[float, ...], std: tuple[float, ...]) -> Preset:
    """The preset with a trained VAE's own latent statistics."""
    return dataclasses.replace(preset, vae=dataclasses.replace(preset.vae, latents_mean=mean, latents_std=std))


def rounded(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is left of weights after they were written as bf16."""
    return {key: value.bfloat16().float() for key, value in values.items()}


def _bits(key: str, shape: Shape, value: Tensor) -> np.ndarray:
    array = np.ascontiguousarray(value.detach().cpu().float().reshape(shape).numpy())
    if not np.isfinite(array).all():
        raise DataError(f"the trained {key} holds NaN or infinity", fix="train again with a smaller rate")
    return bf16_bits(array.reshape(-1))
