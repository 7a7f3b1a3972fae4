"""Checkpoints that NVIDIA quantized to FP8 itself (hub revision `fp8` of Nano and Super, made with ModelOpt).

The projections of both towers' layers are F8_E4M3 with two fp32 scalars each, `<projection>.weight_scale` and
`<projection>.input_scale`: value = code * scale. Everything else stays bf16. hf_quant_config.json says that it is so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motedge.checkpoint.configs import read_config
from motedge.checkpoint.keys import Shape
from motedge.checkpoint.random_weights import DTYPE, random_chunks
from motedge.errors import CheckpointError
from motedge.files import write_json

if TYPE_CHECKING:
    from motedge.checkpoint.tensor_store import TensorStore

QUANT_CONFIG = "hf_quant_config.json"
CODES, SCALE = "F8_E4M3", "F32"
_ALGORITHM = "FP8"
_E4M3_MAX = 448.0
_PROJECTIONS = (
    *("to_q", "to_k", "to_v", "to_out", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("gate_proj", "up_proj", "down_proj"),
)
_SUFFIXES = (".weight_scale", ".input_scale")


def is_projection(key: str) -> bool:
    """Whether a weight is one of those that are quantized."""
    parts = key.split(".")
    return parts[0] == "layers" and parts[-1] == "weight" and parts[-2] in _PROJECTIONS


def is_scale(key: str) -> bool:
    """Whether a tensor is a scale and no parameter."""
    return key.endswith(_SUFFIXES)


def scale_keys(key: str) -> tuple[str, str]:
    """Names of the scales of a weight: of the weight itself, of its input."""
    name = key.removesuffix(".weight")
    return name + _SUFFIXES[0], name + _SUFFIXES[1]


def read_precision(root: Path) -> str:
    """ "fp8" or "bf16", by hf_quant_config.json.

    Raises:
        CheckpointError: it was quantized in a way that is not known here.
    """
    path = root / QUANT_CONFIG
    if not path.exists():
        return "bf16"
    raw = read_config(path)
    # ModelOpt nests it; transformers' form is flat
    said: Mapping[str, Any] = raw.get("quantization", raw)
    if said.get("quant_algo") != _ALGORITHM:
        raise CheckpointError(
            f"the checkpoint is quantized in a way that is not known here: {path}",
            expected=f"quant_algo {_ALGORITHM}, or no such file",
            got=said.get("quant_algo"),
            fix="fetch the bf16 revision (main): motedge quantizes by itself",
        )
    return "fp8"


def with_scales(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The tensors of a component in this layout; scales lie behind all weights, so often in another shard."""
    scales = {name: () for key in shapes if is_projection(key) for name in scale_keys(key)}
    return {**shapes, **scales}


def dtype_of(key: str) -> str:
    """The dtype of a tensor in this layout."""
    if is_scale(key):
        return SCALE
    return CODES if is_projection(key) else DTYPE


def check_scales(store: TensorStore, projections: Iterable[str]) -> None:
    """Checks the scales of every quantized weight.

    Raises:
        CheckpointError: a weight without its scale, or a scale that is no positive number.
    """
    for key in projections:
        if store.dtype(key) != CODES:
            continue
        for name, needed in zip(scale_keys(key), (True, False), strict=True):
            if name not in store:
                if needed:
                    raise CheckpointError(
                        f"a quantized weight has no scale: {key}",
                        expected=name,
                        got="no such tensor",
                        why="its codes mean nothing without it",
                        fix="fetch the checkpoint again",
                    )
                continue
            value = scale_of(store, name)
            if not (math.isfinite(value) and value > 0):
                raise CheckpointError(
                    f"a scale is no positive number: {name}", got=value, fix="fetch the checkpoint again"
                )


def scale_of(store: TensorStore, name: str) -> float:
    """A scale's value; CheckpointError unless it is one number."""
    if math.prod(store.shape(name)) != 1:
        raise CheckpointError(
            f"a scale is not one number: {name}",
            expected="a scalar: one scale a tensor",
            got=list(store.shape(name)),
            fix="fetch the revision that NVIDIA publishes",
        )
    return float(store.tensor(name).float().item())


def projection_scales(store: TensorStore) -> dict[str, dict[str, float | None]]:
    """Projection -> its weight_scale and input_scale (None where there is none), of a checked store."""
    found: dict[str, dict[str, float | None]] = {}
    for key in store:
        if is_projection(key) and store.dtype(key) == CODES:
            weight, own = scale_keys(key)
            found[key.removesuffix(".weight")] = {
                "weight_scale": scale_of(store, weight),
                "input_scale": scale_of(store, own) if own in store else None,
            }
    return found


def write_quant_config(root: Path) -> None:
    """Writes hf_quant_config.json as ModelOpt does."""
    excluded = ["proj_in", "proj_out", "time_embedder*", "action_proj*", "embed_tokens", "lm_head", "vision_encoder*"]
    quantization = {"quant_algo": _ALGORITHM, "kv_cache_quant_algo": None, "exclude_modules": excluded}
    write_json(root / QUANT_CONFIG, {"producer": {"name": "modelopt"}, "quantization": quantization})


def random_fp8_chunks(seed: int) -> Callable[[str, Shape], Iterator[np.ndarray]]:
    """Like random_chunks, with projections as codes of their random values, and their scales."""
    import torch

    def largest(key: str, shape: Shape) -> float:
        return max(float(np.abs(_values(piece)).max()) for piece in random_chunks(key, shape, seed))

    shapes: dict[str, Shape] = {}

    def chunks(key: str, shape: Shape) -> Iterator[np.ndarray]:
        if is_scale(key):
            name, _, kind = key.rpartition(".")
            weight = f"{name}.weight"
            scale = largest(weight, shapes[weight]) / _E4M3_MAX
            # Inputs of a projection are of unit size and rarely beyond 8
            drawn = 8.0 / _E4M3_MAX * (1 + (len(name) + seed) % 7 / 10)
            yield np.array([scale if kind == "weight_scale" else drawn], np.float32)
        elif is_projection(key):
            shapes[key] = shape
            scale = largest(key, shape) / _E4M3_MAX
            for piece in random_chunks(key, shape, seed):
                yield (torch.from_numpy(_values(piece)) / scale).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
        else:
            yield from random_chunks(key, shape, seed)

    return chunks


def _values(bits: np.ndarray) -> np.ndarray:
    """bf16 bits as fp32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
