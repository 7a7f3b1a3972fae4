"""Number formats: their ranges, and rounding to them."""

from __future__ import annotations

import torch
from torch import Tensor

# OCP FP8 specification: largest finite value of E4M3 (no infinities) and its smallest subnormal
E4M3_MAX, E4M3_MIN = 448.0, 2.0**-9
# OCP MX specification: largest value of E2M1
E2M1_MAX = 6.0
INT8_MAX, INT4_MAX = 127.0, 7.0
# Magnitudes of E2M1 in order of their codes; the sign is bit 3
E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
# Midpoints between neighbours
_E2M1_BOUNDS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)


def round_e4m3(x: Tensor) -> Tensor:
    """Rounds to the nearest E4M3 value, ties to even, saturating: float -> torch.float8_e4m3fn of the same shape."""
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def quotient(x: Tensor, divisor: float) -> Tensor:
    """x / divisor, rounded once on every device: by a number, CUDA multiplies by the reciprocal instead."""
    return x / torch.tensor(divisor, dtype=x.dtype, device=x.device)


def e2m1_codes(x: Tensor) -> Tensor:
    """Codes 0..15 of the nearest E2M1 values, ties to even, saturating: float -> uint8 of the same shape."""
    magnitude = x.abs()
    bounds = torch.tensor(_E2M1_BOUNDS, dtype=x.dtype, device=x.device)
    code = torch.bucketize(magnitude, bounds)
    # A midpoint goes to the code below it; the even neighbour of every second one lies above
    for tie in _E2M1_BOUNDS[1::2]:
        code += magnitude == tie
    return (code + 8 * (x < 0)).to(torch.uint8)


def e2m1_values(codes: Tensor) -> Tensor:
    """fp32 values of codes 0..15."""
    table = torch.tensor([*E2M1_VALUES, *(-value for value in E2M1_VALUES)], device=codes.device)
    return table[codes.long()]


def round_e2m1(x: Tensor) -> Tensor:
    """Rounds to the nearest E2M1 value, ties to even, saturating; keeps the dtype.

    The distance between neighbours is 0.5 up to 2, 1 up to 4, and 2 above.
    """
    magnitude = x.abs().clamp(max=E2M1_MAX)
    fine = torch.round(magnitude * 2) / 2
    coarse = torch.where(magnitude <= 3.5, torch.round(magnitude), 2 * torch.round(magnitude / 2))
    return torch.copysign(torch.where(magnitude <= 1.75, fine, coarse), x)
