"""Whether the weights of a component are those that its config describes: names, shapes, dtypes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from motedge.checkpoint.config import ModelConfig
from motedge.checkpoint.fp8_layout import CODES, QUANT_CONFIG, check_scales, is_projection, is_scale, scale_keys
from motedge.checkpoint.keys import Shape, config_fields_of, transformer_shapes
from motedge.checkpoint.sound_config import SoundConfig
from motedge.checkpoint.sound_keys import sound_decoder_shapes, sound_shapes
from motedge.checkpoint.tensor_store import TensorStore
from motedge.checkpoint.vae_config import VaeConfig
from motedge.checkpoint.vae_keys import vae_shapes
from motedge.checkpoint.vision_config import VisionConfig
from motedge.checkpoint.vision_keys import vision_shapes
from motedge.errors import CheckpointError

# Precisions that the exporter reads
FLOAT_DTYPES = ("BF16", "F16", "F32")
_LAYER = re.compile(r"^layers\.(\d+)\.")


def check_transformer(store: TensorStore, config: ModelConfig, precision: str = "bf16") -> None:
    """Raises CheckpointError naming the tensor and the config's fields on the first disagreement.

    `precision`: "bf16", or "fp8" where hf_quant_config.json says that projections are quantized.
    """
    depth = 1 + max((int(match.group(1)) for key in store if (match := _LAYER.match(key))), default=-1)
    if depth != config.num_hidden_layers:
        raise CheckpointError(
            "transformer/config.json contradicts the weights: num_hidden_layers",
            expected=f"{config.num_hidden_layers} layers by the config",
            got=f"{depth} layers in the weights",
            fix="take config and weights of one revision",
        )
    shapes = transformer_shapes(config)
    check_store(store, shapes, _transformer_why, quantized=precision == "fp8")
    if precision == "fp8":
        check_scales(store, filter(is_projection, shapes))


def check_vae(store: TensorStore, config: VaeConfig) -> None:
    """Raises CheckpointError on the first disagreement between vae/ and its config."""
    check_store(store, vae_shapes(config), lambda key: "this follows from vae/config.json")


def check_vision(store: TensorStore, config: VisionConfig) -> None:
    """Raises CheckpointError on the first disagreement between vision_encoder/ and the root config.json."""
    check_store(store, vision_shapes(config), lambda key: "this follows from vision_config in the root config.json")


def check_sound(store: TensorStore, config: SoundConfig, model: ModelConfig) -> None:
    """Raises CheckpointError on the first disagreement between sound_tokenizer/, its config and the transformer's.

    The encoder may be left out: generation does not need it.
    """
    with_encoder = any(key.startswith("encoder.") for key in store)
    shapes = sound_shapes(config) if with_encoder else sound_decoder_shapes(config)
    check_store(store, shapes, lambda key: "this follows from sound_tokenizer/config.json")
    rate = config.sampling_rate / config.hop
    if model.sound_gen and (model.sound_dim, model.sound_latent_fps) != (config.vocoder_input_dim, rate):
        raise CheckpointError(
            "transformer/config.json and sound_tokenizer/config.json contradict each other",
            expected=f"sound_dim = {model.sound_dim}, sound_latent_fps = {model.sound_latent_fps:g}",
            got=f"vocoder_input_dim = {config.vocoder_input_dim}, {rate:g} latents a second",
            fix="take both files of one revision",
        )


def check_latent(config: ModelConfig, vae_config: VaeConfig) -> None:
    """Raises CheckpointError when transformer and VAE do not speak of the same latent."""
    if vae_config.z_dim != config.latent_channel:
        raise CheckpointError(
            "transformer/config.json and vae/config.json contradict each other",
            expected=f"latent_channel = {config.latent_channel}",
            got=f"z_dim = {vae_config.z_dim}",
            fix="take both files of one revision",
        )


def check_store(
    store: TensorStore, shapes: Mapping[str, Shape], why: Callable[[str], str], *, quantized: bool = False
) -> None:
    """Compares one component with what its config asks for.

    Args:
        store: the component's weights.
        shapes: key -> shape by the config.
        why: gives, for a key, the sentence that says where its existence and shape come from.
        quantized: projections may be in FP8, with their scales beside them.

    Raises:
        CheckpointError: a missing or unexpected tensor, a wrong shape, or a dtype that is no plain float.
    """
    fix = "take config and weights of one revision"
    scales = sorted(filter(is_scale, store))
    if scales and not quantized:
        raise CheckpointError(
            f"{store.folder} is quantised already",
            expected="plain " + ", ".join(FLOAT_DTYPES) + f" weights, or a {QUANT_CONFIG} that says how",
            got=f"scales such as {scales[0]}",
            fix="fetch the whole revision, or the bf16 one (main): motedge quantizes by itself",
        )
    owned = {name for key in filter(is_projection, shapes) for name in scale_keys(key)} if quantized else set()
    missing = [key for key in shapes if key not in store]
    if missing:
        raise CheckpointError(
            f"{len(missing)} tensors are missing in {store.folder}: {missing[0]}",
            expected=f"{missing[0]} {list(shapes[missing[0]])}",
            got="no such tensor",
            why=why(missing[0]),
            fix=fix,
        )
    unexpected = [key for key in store if key not in shapes and key not in owned]
    if unexpected:
        raise CheckpointError(
            f"{len(unexpected)} tensors of {store.folder} belong to no part of the model: {unexpected[0]}",
            expected=f"{len(shapes)} tensors",
            got=f"{unexpected[0]} {list(store.shape(unexpected[0]))} and {len(unexpected) - 1} more",
            why=why(unexpected[0]),
            fix=fix,
        )
    for key, shape in shapes.items():
        if store.shape(key) != shape:
            raise CheckpointError(
                f"a weight has the wrong shape: {key}",
                expected=list(shape),
                got=list(store.shape(key)),
                why=why(key),
                fix=fix,
            )
        coded = quantized and is_projection(key) and store.dtype(key) == CODES
        if store.dtype(key) not in FLOAT_DTYPES and not coded:
            raise CheckpointError(
                f"a weight has a dtype that can't be exported: {key}",
                expected=", ".join(FLOAT_DTYPES),
                got=store.dtype(key),
                fix="fetch the bf16 revision (main)",
            )


def _transformer_why(key: str) -> str:
    return f"this follows from {', '.join(config_fields_of(key))} in transformer/config.json"
