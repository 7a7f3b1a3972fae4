"""Keeps the squared ReLU of Edge within fp16: a power-of-two scale a layer, proven from the weights.

RMSNorm's output is g * x_hat with |x_hat| <= sqrt(H), so by Cauchy-Schwarz no activation of up_proj exceeds
sqrt(H) * max_j |W_j * g|. That bound, and no measurement, chooses the scale: the square can't overflow whatever the
input. The weights stay untouched; the graph multiplies before the square and after down_proj.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from motedge.checkpoint.config import ModelConfig
from motedge.checkpoint.reader import TensorStore

FP16_MAX = 65504.0
# Column sums of down_proj run over squares: leave room for rounding of the bound itself
_SAFE_ROOT = math.sqrt(FP16_MAX) * 0.99
_MAX_EXPONENT = 15  # beyond, the inverse itself leaves fp16


@dataclass(frozen=True)
class Relu2Range:
    """What is known of one layer's activations before the square."""

    # Largest value that any input can give
    bound: float
    # Power of two with which bound * scale fits fp16 after squaring
    scale: float


def relu2_ranges(config: ModelConfig, store: TensorStore, tower: str) -> list[Relu2Range]:
    """The range of every layer of a tower ("und" or "gen"); empty for models without squared ReLU."""
    if config.gated:
        return []
    suffix = "_moe_gen" if tower == "gen" else ""
    ranges = []
    for index in range(config.num_hidden_layers):
        norm = store.finite_tensor(f"layers.{index}.post_attention_layernorm{suffix}.weight").float()
        up = store.finite_tensor(f"layers.{index}.mlp{suffix}.up_proj.weight").float()
        bound = float(torch.linalg.vector_norm(up * norm, dim=1).max()) * math.sqrt(config.hidden_size)
        ranges.append(Relu2Range(bound, scale_for(bound)))
    return ranges


def unproven_layers(ranges: Sequence[Relu2Range]) -> list[int]:
    """Layers whose activations may leave fp16 before the square: there the bound proves nothing."""
    return [index for index, known in enumerate(ranges) if known.bound > FP16_MAX]


def scale_for(bound: float) -> float:
    """The largest power of two, at most 1, with (bound * scale)**2 within fp16."""
    if bound <= _SAFE_ROOT:
        return 1.0
    return 2.0 ** -min(math.ceil(math.log2(bound / _SAFE_ROOT)), _MAX_EXPONENT)
