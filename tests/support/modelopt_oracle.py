"""One projection as ModelOpt computes it: the oracle for what the emitted operators compute."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from motedge.quant.parameters import SiteParameters
from motedge.quant.schemes import FP8, INT4, INT8, NVFP4

_BITS: dict[str, dict[str, Any]] = {
    FP8: {"num_bits": (4, 3), "axis": None},
    INT8: {"num_bits": 8, "axis": 0},
    INT4: {"num_bits": 4, "block_sizes": {-1: 128, "type": "static"}},
}


def modelopt_projection(x: Tensor, weight: Tensor, known: SiteParameters) -> Tensor:
    """x [N, in] times W [in, out], both fake-quantized by ModelOpt with the given ranges and smoothing."""
    if known.pre_quant_scale is not None:
        weight = weight / known.pre_quant_scale[:, None]
    if known.scheme.weight == NVFP4:
        return _nvfp4_input(x, known) @ _nvfp4_weight(weight)
    import modelopt.torch.quantization as mtq

    linear = nn.Sequential(nn.Linear(*weight.shape, bias=False))
    linear[0].weight = nn.Parameter(weight.t().contiguous(), requires_grad=False)
    static = {"num_bits": (4, 3) if known.scheme.activation == FP8 else 8, "axis": None}
    config = {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "cfg": _BITS[known.scheme.weight], "enable": True},
            {"quantizer_name": "*input_quantizer", "cfg": static, "enable": known.scheme.activation is not None},
        ],
        "algorithm": "max",
    }
    with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        mtq.quantize(linear, config, lambda model: model(x))
        if known.scheme.activation is not None:
            linear[0].input_quantizer.amax = torch.tensor(known.input_amax)
        if known.pre_quant_scale is not None:
            x = x * known.pre_quant_scale
        return linear(x)


def _nvfp4_weight(weight: Tensor) -> Tensor:
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor

    codes, scale, double = NVFP4QTensor.quantize(weight.t().contiguous(), 16)
    return codes.dequantize(dtype=torch.float32, scale=scale, double_scale=double, block_sizes={-1: 16}).t()


def _nvfp4_input(x: Tensor, known: SiteParameters) -> Tensor:
    """ModelOpt's dynamic NVFP4 runs on a GPU alone; this follows the format's definition in numpy, by table."""
    if known.scheme.activation is None:
        return x
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    blocks = x.double().numpy().reshape(len(x), -1, 16)
    whole = np.float32(known.input_amax) / 2688
    wanted = torch.from_numpy((np.abs(blocks).max(-1) / 6 / whole).astype(np.float32)).clamp(max=448)
    step = wanted.to(torch.float8_e4m3fn).double().numpy()[..., None] * whole
    step = np.where(step < 1e-5, 1.0, step)
    distance = np.abs(np.abs(blocks / step)[..., None] - values)
    # Of two equally near codes the even one
    even = np.arange(8) % 2 == 0
    code = np.argmin(distance - 1e-9 * even, axis=-1)
    return torch.from_numpy((np.sign(blocks) * values[code] * step).reshape(x.shape)).float()
