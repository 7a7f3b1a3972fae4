"""Activations: what a tensor is after it was quantized and dequantized."""

from __future__ import annotations

import torch
from torch import Tensor

from motedge.errors import InternalError
from motedge.quant.numerics import nvfp4
from motedge.quant.numerics.formats import E4M3_MAX, INT8_MAX, quotient, round_e4m3
from motedge.quant.parameters import SiteParameters
from motedge.quant.schemes import FP8, INT8


def activation_scale(parameters: SiteParameters, dtype: torch.dtype) -> float:
    """The static scale of a site's activation as the graph's `dtype` holds it.

    FP8, INT8: value = code * scale. NVFP4: the scale of the block scales.
    """
    kind, amax = parameters.scheme.activation, parameters.input_amax
    if kind is None or not amax:
        raise InternalError(f"{parameters.scheme.id} has no activation scale: amax {amax}")
    if kind == FP8:
        return _held(amax / E4M3_MAX, dtype)
    if kind == INT8:
        return _held(amax / INT8_MAX, dtype)
    return nvfp4.global_scale(amax, dtype)


def fake_quantize(x: Tensor, parameters: SiteParameters, dtype: torch.dtype) -> Tensor:
    """x [..., in] after smoothing, quantizing and dequantizing as the graph of `dtype` does it; keeps x's dtype."""
    if parameters.pre_quant_scale is not None:
        x = x * parameters.pre_quant_scale.to(dtype).to(x)
    kind = parameters.scheme.activation
    if kind is None:
        return x
    scale = activation_scale(parameters, dtype)
    if kind == FP8:
        return (round_e4m3(quotient(x.float(), scale)).float() * scale).to(x.dtype)
    if kind == INT8:
        return (quotient(x.float(), scale).round().clamp(-INT8_MAX - 1, INT8_MAX) * scale).to(x.dtype)
    return nvfp4.fake_quantize_dynamic(x, scale)


def _held(scale: float, dtype: torch.dtype) -> float:
    held = float(torch.tensor(scale, dtype=dtype).item())
    # Smaller than the type's least value: any scale serves, since every value then is far below one step
    return held or float(torch.finfo(dtype).tiny)
