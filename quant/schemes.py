"""Schemes: how one projection y = x W is quantized, and what a device must have to run it.

Granularity of every scheme, for a weight W [in, out] and an activation x [N, in]:

| scheme        | weight                 | scales of W               | activation               | scale of x          |
|---------------|------------------------|---------------------------|--------------------------|---------------------|
| fp8           | E4M3                   | one, fp                   | E4M3, static             | one, fp             |
| fp8-w8a16     | E4M3                   | one, fp                   | as it is                 |                     |
| int8-sq       | int8, smoothed         | [out], fp                 | int8, static, smoothed   | one, fp             |
| int8-w8a16    | int8                   | [out], fp                 | as it is                 |                     |
| int4-awq      | int4, smoothed         | [in / 128, out], fp       | smoothed                 |                     |
| int4-w4a16    | int4                   | [in / 128, out], fp       | as it is                 |                     |
| nvfp4         | E2M1                   | [in / 16, out] E4M3, one  | E2M1, dynamic            | [N, in / 16], one   |
| nvfp4-w4a16   | E2M1                   | [in / 16, out] E4M3, one  | as it is                 |                     |

"Smoothed": x is multiplied by a vector [in] and W's rows are divided by it, so that x W stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from motedge.errors import UsageError, closest

# Layout of the quantized values
FP8, INT8, INT4, NVFP4 = "fp8", "int8", "int4", "nvfp4"
BITS = {FP8: 8, INT8: 8, INT4: 4, NVFP4: 4}
# What a format needs of a GPU: least compute capability, and the source of that
LEAST_SM: dict[str, tuple[float, str]] = {
    FP8: (8.9, "TensorRT support matrix: FP8 on Ada (8.9), Hopper and later"),
    INT8: (7.5, "TensorRT support matrix: INT8 tensor cores since Turing"),
    INT4: (7.5, "TensorRT: INT4 is weight-only and dequantized to fp16"),
    NVFP4: (10.0, "TensorRT support matrix: FP4 on Blackwell (10.0) and later"),
}

# Blocked DequantizeLinear and INT4 came with opset 21, FLOAT4E2M1 with 23
OPSET_BLOCKED, OPSET_FP4 = 21, 23


@dataclass(frozen=True)
class Scheme:
    """One way of quantizing a projection."""

    id: str
    # FP8, INT8, INT4 or NVFP4
    weight: str
    # The same, or None where activations stay in the graph's type
    activation: Optional[str] = None
    # "smoothquant" or "awq": which search gives the smoothing vector; None without one
    smoothing: Optional[str] = None
    # Values of one column that share a scale; None: the whole column (INT8) or the whole weight (FP8)
    block: Optional[int] = None

    @property
    def weight_bits(self) -> float:
        """Bits a weight takes, block scales included (scales in 16 bits, NVFP4's in 8)."""
        if self.block is None:
            return float(BITS[self.weight])
        return BITS[self.weight] + (8 if self.weight == NVFP4 else 16) / self.block

    @property
    def least_sm(self) -> float:
        """Least compute capability of a GPU that runs it, for example 8.9."""
        return LEAST_SM[self.weight][0]

    @property
    def least_sm_source(self) -> str:
        """Where that is said."""
        return LEAST_SM[self.weight][1]

    @property
    def needs_calibration(self) -> bool:
        """Whether it needs statistics of activations."""
        return self.activation is not None or self.smoothing is not None


SCHEMES = {
    scheme.id: scheme
    for scheme in (
        Scheme("fp8", FP8, FP8),
        Scheme("fp8-w8a16", FP8),
        Scheme("int8-sq", INT8, INT8, "smoothquant"),
        Scheme("int8-w8a16", INT8),
        Scheme("int4-awq", INT4, None, "awq", 128),
        Scheme("int4-w4a16", INT4, None, None, 128),
        Scheme("nvfp4", NVFP4, NVFP4, None, 16),
        Scheme("nvfp4-w4a16", NVFP4, None, None, 16),
    )
}


def find_scheme(name: str) -> Scheme:
    """A scheme by its id; UsageError names the closest for an unknown one."""
    if name not in SCHEMES:
        raise UsageError(f"unknown quantization scheme {name!r}", fix=f'{closest(name, SCHEMES)}; or "none"')
    return SCHEMES[name]


def quantized_opset(opset: int, dialect: str, dtype: str, schemes: Iterable[Scheme]) -> int:
    """Opset of a graph after quantization: the new number formats came with newer ones.

    Args:
        opset: of the graph before.
        dialect: of the graph, "fused" or "primitive".
        dtype: its floating type; NVFP4 is emulated in "primitive" and "fp32".
        schemes: of its projections.
    """
    formats = {scheme.weight for scheme in schemes}
    if NVFP4 in formats and (dialect, dtype) != ("primitive", "fp32"):
        return max(opset, OPSET_FP4)
    return max(opset, OPSET_BLOCKED) if formats & {INT4, NVFP4} else opset
