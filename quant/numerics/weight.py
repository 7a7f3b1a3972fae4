"""Weights: from values to codes and scales, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from motedge.errors import ExportError
from motedge.quant.numerics import nvfp4
from motedge.quant.numerics.formats import (
    E4M3_MAX,
    INT4_MAX,
    INT8_MAX,
    e2m1_codes,
    e2m1_values,
    round_e4m3,
)
from motedge.quant.parameters import SiteParameters
from motedge.quant.schemes import FP8, INT4, INT8


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight W [in, out] as codes and scales; K = in / block."""

    # FP8: float8_e4m3fn; INT8 and INT4: int8; NVFP4: uint8 0..15. All [in, out], one a value
    codes: Tensor
    # FP8 []: INT8 [out]; INT4 [K, out]; fp32 values that the graph's dtype holds exactly. NVFP4: float8_e4m3fn [K, out]
    scale: Tensor
    # NVFP4: the scale of the scales; None otherwise
    global_scale: Optional[float] = None

    def dequantize(self) -> Tensor:
        """What the codes stand for, fp32 [in, out]; smoothing is not undone."""
        if self.global_scale is not None:
            values, scale = e2m1_values(self.codes), self.scale.float() * self.global_scale
        else:
            values, scale = self.codes.float(), self.scale
        if scale.ndim == 2:
            block = values.shape[0] // scale.shape[0]
            return _blocked(values, block).mul(scale[:, None]).flatten(0, 1)
        return values * scale


def quantize_weight(name: str, weight: Tensor, parameters: SiteParameters, dtype: torch.dtype) -> QuantizedWeight:
    """Quantizes W.

    Args:
        name: for messages.
        weight: [in, out], finite.
        parameters: scheme, smoothing, and amax where a checkpoint gives it.
        dtype: the graph's floating type, in which scales are kept; codes are found with the scale so rounded.

    Raises:
        ExportError: `in` is no multiple of the scheme's block, or the weight is all zero under one scale a tensor.
    """
    scheme, values = parameters.scheme, weight.float()
    if parameters.pre_quant_scale is not None:
        values = values / parameters.pre_quant_scale.to(dtype).to(values)[:, None]
    _check_block(name, values, scheme.block)
    if scheme.weight == FP8:
        amax = parameters.weight_amax or _whole_amax(name, values)
        scale, inverse = _held(torch.tensor(amax), E4M3_MAX, dtype)
        return QuantizedWeight(round_e4m3(values * inverse), scale)
    if scheme.weight == INT8:
        scale, inverse = _held(values.abs().amax(0), torch.tensor(INT8_MAX), dtype)
        return QuantizedWeight(_integers(values * inverse, INT8_MAX), scale)
    blocks = _blocked(values, scheme.block or 1)
    if scheme.weight == INT4:
        scale, inverse = _held(blocks.abs().amax(1), torch.tensor(INT4_MAX), dtype)
        return QuantizedWeight(_integers(blocks * inverse[:, None], INT4_MAX).flatten(0, 1), scale)
    whole = nvfp4.global_scale(_whole_amax(name, values), dtype)
    scales = nvfp4.block_scales(blocks.transpose(1, 2), whole)
    step = (scales.float() * whole)[:, None]
    return QuantizedWeight(e2m1_codes(blocks / step).flatten(0, 1), scales, whole)


def _whole_amax(name: str, values: Tensor) -> float:
    amax = float(values.abs().max())
    if amax == 0:
        raise ExportError(f"{name} is all zeros", why="it has no range to quantize to", fix='give it "none"')
    return amax


def _blocked(values: Tensor, block: int) -> Tensor:
    """[in, out] -> [in / block, block, out]."""
    return values.reshape(-1, block, values.shape[1])


def _held(amax: Tensor, largest: float | Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The scale amax / largest as `dtype` holds it, in fp32, and what values are multiplied by to get codes.

    Weights that were bf16 often lie on the border between two codes. Where the scale needs no rounding, the factor is
    largest / amax, not the scale's reciprocal, as in ModelOpt: borders then fall on the same side. (A number over a
    tensor is the number times the reciprocal in torch, a tensor over a tensor a quotient; ModelOpt has the first for
    FP8 and the second for integers.) 1 where a column or block is all zeros, or its scale too small for the type.
    """
    exact = amax.float() / largest
    held = exact.to(dtype).float()
    inverse = torch.where(held == exact, largest / amax.float(), 1 / held)
    none = held == 0
    return torch.where(none, torch.ones_like(held), held), torch.where(none, torch.ones_like(held), inverse)


def _integers(scaled: Tensor, largest: float) -> Tensor:
    return scaled.round().clamp(-largest - 1, largest).to(torch.int8)


def _check_block(name: str, values: Tensor, block: Optional[int]) -> None:
    if block is not None and values.shape[0] % block:
        raise ExportError(
            f"{name} does not divide into blocks",
            expected=f"a multiple of {block} inputs",
            got=values.shape[0],
            fix='give this projection another scheme, or "none"',
        )
