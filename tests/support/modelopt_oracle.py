"""Projections as ModelOpt computes them: the oracle for what the emitted operators compute."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from motedge.quant.numerics.nvfp4 import global_scale
from motedge.quant.parameters import SiteParameters
from motedge.quant.schemes import FP8, INT4, INT8, NVFP4
from motedge.quant.sites import module_sites

_BITS: dict[str, dict[str, Any]] = {
    FP8: {"num_bits": (4, 3), "axis": None},
    INT8: {"num_bits": 8, "axis": 0},
    INT4: {"num_bits": 4, "block_sizes": {-1: 128, "type": "static"}},
}


class ModelOptProjection(nn.Module):
    """x [N, in] times W [in, out], both fake-quantized by ModelOpt with the given ranges and smoothing, fp32."""

    def __init__(self, weight: Tensor, known: SiteParameters, dtype: torch.dtype = torch.float32) -> None:
        """`dtype`: in which the graph holds NVFP4's global scales; ModelOpt is given them so rounded."""
        super().__init__()
        self.known, self.dtype = known, dtype
        if known.pre_quant_scale is not None:
            weight = weight / known.pre_quant_scale[:, None]
        if known.scheme.weight == NVFP4:
            # ModelOpt's fake quantization of NVFP4 asks for a GPU; its tensors do not
            self.held = _nvfp4_weight(weight, dtype)
        else:
            self.linear = _quantized_linear(weight, known)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] -> [N, out]."""
        if self.known.pre_quant_scale is not None:
            x = x * self.known.pre_quant_scale
        with torch.no_grad():
            if self.known.scheme.weight == NVFP4:
                return _nvfp4_input(x, self.known, self.dtype) @ self.held
            return self.linear(x)


@contextlib.contextmanager
def modelopt_quantized(module: nn.Module, parameters: Mapping[str, SiteParameters]) -> Iterator[None]:
    """One of our torch modules with its projections computed by ModelOpt, for the time of a `with` block."""
    sites, paths = module_sites(module), {id(layer): path for path, layer in module.named_modules()}
    originals = {paths[id(sites[name][1])]: sites[name][1] for name in parameters}
    try:
        for name, known in parameters.items():
            linear = sites[name][1]
            module.set_submodule(paths[id(linear)], ModelOptProjection(linear.weight, known))
        yield
    finally:
        for path, linear in originals.items():
            module.set_submodule(path, linear)


def _quantized_linear(weight: Tensor, known: SiteParameters) -> nn.Module:
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
        mtq.quantize(linear, config, lambda model: model(torch.ones(1, len(weight))))
        if known.scheme.activation is not None:
            linear[0].input_quantizer.amax = torch.tensor(known.input_amax)
    return linear


def _nvfp4_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor

    whole = None if dtype is torch.float32 else torch.tensor(global_scale(float(weight.abs().max()), dtype))
    codes, scale, double = NVFP4QTensor.quantize(weight.t().contiguous(), 16, weights_scaling_factor_2=whole)
    return codes.dequantize(dtype=torch.float32, scale=scale, double_scale=double, block_sizes={-1: 16}).t()


def _nvfp4_input(x: Tensor, known: SiteParameters, dtype: torch.dtype) -> Tensor:
    """ModelOpt's dynamic NVFP4 runs on a GPU alone; this follows the format's definition in numpy, by table."""
    if known.scheme.activation is None:
        return x
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    blocks = x.double().numpy().reshape(len(x), -1, 16)
    whole = np.float32(known.input_amax) / 2688 if dtype is torch.float32 else global_scale(known.input_amax, dtype)
    wanted = torch.from_numpy((np.abs(blocks).max(-1) / 6 / whole).astype(np.float32)).clamp(max=448)
    step = wanted.to(torch.float8_e4m3fn).double().numpy()[..., None] * whole
    step = np.where(step < 1e-5, 1.0, step)
    distance = np.abs(np.abs(blocks / step)[..., None] - values)
    # Of two equally near codes the even one
    even = np.arange(8) % 2 == 0
    code = np.argmin(distance - 1e-9 * even, axis=-1)
    return torch.from_numpy((np.sign(blocks) * values[code] * step).reshape(x.shape)).float()
