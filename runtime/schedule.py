"""Noise levels of a flow-matching sampler: sigmas for the solver, integer timesteps for the network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from motedge.errors import UsageError, closest
from motedge.runtime.engine import FloatArray, IntArray

TRAIN_TIMESTEPS = 1000
SPACINGS = ("native", "linear", "karras")
# Range of the karras spacing in the published Nano and Super scheduler configurations, and Karras et al.'s exponent
KARRAS_SIGMA_MIN, KARRAS_SIGMA_MAX, KARRAS_RHO = 0.147, 200.0, 7.0
# A first sigma of 1 has an infinite log-SNR; it is lowered by this much
_EPSILON = 1e-6


@dataclass(frozen=True)
class FlowSchedule:
    """A schedule of `steps` noise levels and a last one of 0.

    Spacings: "native" is the one that NVIDIA samples with (0.999 down to 0); "linear" runs from 1 to 0.001 (diffusers'
    flow path); "karras" ignores the shift. Equal to diffusers 0.42.1, bit for bit.
    """

    steps: int
    # s of sigma = s b / (1 + (s - 1) b)
    shift: float
    # One of SPACINGS
    spacing: str = "native"
    # fp32 [steps + 1], strictly falling, the last one 0
    sigmas: FloatArray = field(init=False, repr=False, compare=False)
    # int64 [steps], trunc(1000 sigma)
    timesteps: IntArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= TRAIN_TIMESTEPS:
            raise UsageError("the number of steps is wrong", expected=f"1 to {TRAIN_TIMESTEPS}", got=self.steps)
        if not (math.isfinite(self.shift) and self.shift > 0):
            raise UsageError("the flow shift is wrong", expected="a finite number above 0", got=self.shift)
        if self.spacing not in SPACINGS:
            raise UsageError(f"unknown spacing {self.spacing!r}", fix=closest(self.spacing, SPACINGS))
        levels = _karras(self.steps) if self.spacing == "karras" else self._shifted()
        sigmas = np.append(levels, 0.0).astype(np.float32)
        if not (np.diff(sigmas) < 0).all():
            raise UsageError(
                "the schedule has two equal noise levels",
                got=f"{self.steps} steps with shift {self.shift}",
                fix="take fewer steps or a shift nearer to 1",
            )
        object.__setattr__(self, "sigmas", sigmas)
        object.__setattr__(self, "timesteps", (levels * TRAIN_TIMESTEPS).astype(np.int64))

    def _shifted(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        first, last = (1 - 1 / TRAIN_TIMESTEPS, 0.0) if self.spacing == "native" else (1.0, 1 / TRAIN_TIMESTEPS)
        base = np.linspace(first, last, self.steps + 1)[:-1]
        levels = self.shift * base / (1 + (self.shift - 1) * base)
        if abs(levels[0] - 1) < _EPSILON:
            levels[0] -= _EPSILON
        return levels


def _karras(steps: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Karras et al. 2022 (https://arxiv.org/abs/2206.00364, eq. 5), turned from variance-exploding to flow sigmas."""
    ramp = np.linspace(0, 1, steps)
    low, high = KARRAS_SIGMA_MIN ** (1 / KARRAS_RHO), KARRAS_SIGMA_MAX ** (1 / KARRAS_RHO)
    exploding = (high + ramp * (low - high)) ** KARRAS_RHO
    return np.asarray(exploding / (exploding + 1))
