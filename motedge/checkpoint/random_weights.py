"""Random weights that behave: unit-sized activations at any depth and width, and no tensor that does nothing.

A tensor depends on the seed and its own name only, so files may be written in any order, and one weight can be made
again alone. Values are made in fp32 and rounded to bf16 (nearest, ties to even), as the published weights are bf16.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np

from motedge.checkpoint.keys import Shape

DTYPE = "BF16"
_CHUNK = 1 << 22  # elements drawn in one go: 16 MB of fp32


def random_chunks(key: str, shape: Shape, seed: int) -> Iterator[np.ndarray]:
    """The tensor's bf16 bits as uint16 pieces, in order, so that none is ever held whole."""
    mean, std = distribution(key, shape)
    entropy = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest(), "little")
    generator = np.random.Generator(np.random.PCG64(entropy))
    remaining = math.prod(shape)
    while remaining:
        count = min(remaining, _CHUNK)
        values = generator.standard_normal(count, dtype=np.float32)
        values *= np.float32(std)
        values += np.float32(mean)
        yield bf16_bits(values)
        remaining -= count


def distribution(key: str, shape: Shape) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values, by its role."""
    module, _, leaf = key.rpartition(".")
    if key == "action_proj_in.bias.weight" or key == "action_proj_out.bias.weight" or leaf == "bias":
        return 0.0, 0.02
    if leaf == "gamma" or (leaf == "weight" and len(shape) == 1):
        return 1.0, 0.05  # norms
    if leaf == "weight_g":
        return _length(module), 0.02  # of a direction: how much larger the output is than the input
    if leaf in ("alpha", "beta"):
        return 0.0, 0.3  # logarithms of the snake's frequency and size
    if key.endswith("modality_embed"):
        return 0.0, 0.2
    if module.endswith(("position_embedding", "pos_embed")):
        return 0.0, 0.1
    if module == "embed_tokens":
        return 0.0, 1.0  # the residual stream starts at unit size
    return 0.0, 1.0 / math.sqrt(_fan_in(key, shape))


def _length(module: str) -> float:
    """Residual branches of the audio tokenizer are small beside what they are added to, and its waveform within 1."""
    if ".res_unit" in module:
        return 0.3
    return 0.6 if module == "decoder.conv2" else 1.0


def bf16_bits(values: np.ndarray) -> np.ndarray:
    """fp32 values -> the upper halves, rounded to nearest, ties to even, as uint16. Finite values only."""
    bits = values.view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    return rounded.astype("<u2")


def _fan_in(key: str, shape: Shape) -> int:
    if key == "action_proj_in.fc.weight":  # a row is one embodiment's [action_dim, H]
        return 64
    if key == "action_proj_out.fc.weight":  # a row is one embodiment's [H, action_dim]
        return shape[1] // 64
    return math.prod(shape[1:])
