"""Classifier-free guidance: at which steps it is active, and how two velocities are combined."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from motedge.errors import UsageError
from motedge.runtime.engine import FloatArray


@dataclass(frozen=True)
class GuidancePlan:
    """Scale and interval of classifier-free guidance."""

    # v = v_uncond + scale * (v_cond - v_uncond); 1 needs no unconditional forward
    scale: float
    # Active only where lo < t < hi, both strict as in cosmos-framework; None: always
    interval: Optional[tuple[float, float]] = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise UsageError("the guidance scale is wrong", expected="a finite number", got=self.scale)
        if self.interval is None:
            return
        if len(self.interval) != 2 or not all(math.isfinite(edge) for edge in self.interval):
            raise UsageError("the guidance interval is wrong", expected="two finite numbers lo, hi", got=self.interval)
        if self.interval[0] >= self.interval[1]:
            raise UsageError(
                "the guidance interval is empty",
                expected="lo < hi, in timesteps 0 to 1000",
                got=self.interval,
                fix="swap them, or set the guidance scale to 1 to go without guidance",
            )

    def active(self, t: float) -> bool:
        """Whether the step at timestep `t` (0..1000) takes a second forward."""
        if self.scale == 1:
            return False
        return self.interval is None or self.interval[0] < t < self.interval[1]

    def forwards(self, timesteps: Iterable[float]) -> int:
        """Forwards of the generator over a whole schedule."""
        return sum(2 if self.active(t) else 1 for t in timesteps)


def combine(v_cond: FloatArray, v_uncond: FloatArray, scale: float, out: FloatArray) -> FloatArray:
    """Writes `v_uncond + scale * (v_cond - v_uncond)` into `out`, all fp32 of one shape; `out` may be neither input."""
    np.subtract(v_cond, v_uncond, out=out)
    np.multiply(out, np.float32(scale), out=out)
    return np.add(out, v_uncond, out=out)


def guide(
    v_cond: Sequence[FloatArray],
    v_uncond: Optional[Sequence[FloatArray]],
    scale: float,
    outs: Sequence[FloatArray],
) -> None:
    """Writes the velocities that the solver takes into `outs`: combined, or `v_cond` where there is no `v_uncond`."""
    if v_uncond is None:
        for velocity, out in zip(v_cond, outs):
            out[...] = velocity
        return
    for velocity, other, out in zip(v_cond, v_uncond, outs):
        combine(velocity, other, scale, out=out)
