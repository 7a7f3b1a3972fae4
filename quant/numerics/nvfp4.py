"""NVFP4: E2M1 values in blocks of 16 along the reduced axis, an E4M3 scale a block, one scale for all of them.

value = code * block_scale * global_scale, with global_scale = amax / (6 * 448): the largest block then has the largest
E4M3 scale. Source of the formulas: NVIDIA's description of the format in ModelOpt and TensorRT ("double quantization").
"""

from __future__ import annotations

import torch
from torch import Tensor

from motedge.quant.numerics.formats import E2M1_MAX, E4M3_MAX, E4M3_MIN, quotient, round_e2m1, round_e4m3

BLOCK = 16
# Below this step a block counts as zero, as in ModelOpt's GPU kernel
ZERO_BLOCK = 1e-5


def global_scale(amax: float, dtype: torch.dtype) -> float:
    """The scale of the block scales: amax / 2688, in a 16-bit type rounded up, so that no block scale exceeds E4M3."""
    whole = torch.tensor(amax) / (E2M1_MAX * E4M3_MAX)
    exact, rounded = float(whole.item()), whole.to(dtype)
    if rounded.item() < exact:
        rounded = torch.nextafter(rounded, torch.tensor(torch.inf, dtype=dtype))
    return float(rounded.item())


def block_scales(blocks: Tensor, scale: float) -> Tensor:
    """E4M3 scale of each block of a weight: blocks fp32 [..., 16] -> float8_e4m3fn [...]; 1 for a block of zeros."""
    wanted = quotient(blocks.abs().amax(-1), E2M1_MAX * scale)
    wanted = torch.where(wanted == 0, torch.ones_like(wanted), wanted)
    return wanted.clamp(E4M3_MIN, E4M3_MAX).to(torch.float8_e4m3fn)


def fake_quantize_dynamic(x: Tensor, scale: float) -> Tensor:
    """An activation after NVFP4 with block scales found at run time: x [..., K], K a multiple of 16 -> the same.

    `scale`: the static global scale, from calibration. A block whose scale would round to zero becomes zero.
    """
    blocks = x.float().reshape(*x.shape[:-1], -1, BLOCK)
    wanted = quotient(blocks.abs().amax(-1, keepdim=True), E2M1_MAX * scale)
    step = round_e4m3(wanted).float() * scale
    safe = torch.where(step >= ZERO_BLOCK, step, torch.ones_like(step))
    return (round_e2m1(blocks / safe) * safe).flatten(-2).to(x.dtype)
