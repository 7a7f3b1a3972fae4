"""SeaCache's measure of how much a noisy latent has changed: through a Wiener filter, so that noise counts little.

From SeaCache (https://arxiv.org/abs/2602.18993). Clean latents are taken to have the power 1 / |f|^3 along each of
time, rows and columns; for x = (1 - sigma) x0 + sigma noise the filter's gain along an axis is
(1 - sigma) S / ((1 - sigma)^2 S + sigma^2), of all axes their product, scaled to a mean of 1 over the spectrum.
"""

from __future__ import annotations

import math
from typing import Any, Optional

import numpy as np

from motedge.runtime.engine import FloatArray
from motedge.runtime.schedule import TRAIN_TIMESTEPS

# Exponent of the prior, and what keeps quotients finite: cosmos-framework at 5eee9ed
_POWER, _EPSILON = 3.0, 1e-16
# Sigma is held this far from 0 and 1
_EDGE = 1e-6
# Of a latent [C, T, h, w]
_AXES = (1, 2, 3)


def filtered(latent: FloatArray, sigma: float) -> FloatArray:
    """The latent [C, T, h, w] as the filter passes it, fp32, conditioning frames included."""
    sigma = min(max(sigma, _EDGE), 1 - _EDGE)
    gains = [_gain(latent.shape[axis], sigma) for axis in _AXES]
    mean = math.prod(float(gain.mean()) for gain in gains)
    # Of a real signal the last axis needs only half its spectrum
    gains[-1] = gains[-1][: latent.shape[-1] // 2 + 1]
    spectrum = np.fft.rfftn(latent, axes=_AXES)
    for axis, gain in zip(_AXES, gains):
        shape = [1] * latent.ndim
        shape[axis] = gain.size
        spectrum *= gain.reshape(shape)
    spectrum /= mean
    return np.fft.irfftn(spectrum, s=latent.shape[1:], axes=_AXES).astype(np.float32)


def _gain(size: int, sigma: float) -> FloatArray:
    """The gain along one axis of `size` elements, fp32, in the order of the spectrum."""
    power = 1 / (np.abs(np.fft.fftfreq(size)).astype(np.float32) ** np.float32(_POWER) + np.float32(_EPSILON))
    signal, noise = np.float32(1 - sigma), np.float32(sigma)
    gain: FloatArray = signal * power / (signal * signal * power + noise * noise + np.float32(_EPSILON))
    return gain


def relative_change(now: FloatArray, before: FloatArray) -> float:
    """Mean of |now - before| over the mean of |before|."""
    return float(np.abs(now - before).mean() / (np.abs(before).mean() + _EPSILON))


class SeaIndicator:
    """The filtered latent of the step under way, made once for both branches."""

    def __init__(self, vision: FloatArray) -> None:
        """`vision`: the state's latent [C, T, h, w], fp32, read when `at` is called."""
        self._vision = vision
        self._step: Optional[int] = None
        self._value: Any = None

    def at(self, step: int, t: float) -> FloatArray:
        """What step `step` at timestep `t` (0..1000) shows; an own array."""
        if self._step != step:
            self._value, self._step = filtered(self._vision, t / TRAIN_TIMESTEPS), step
        return self._value  # type: ignore[no-any-return]


class SeaRule:
    """Whether one branch computes a step. The first and the last step are always computed."""

    def __init__(self, threshold: float, steps: int) -> None:
        """`steps`: of the schedule."""
        self._threshold, self._steps = threshold, steps
        self._accumulated = 0.0
        self._previous: Optional[FloatArray] = None

    def computes(self, step: int, indicator: FloatArray) -> bool:
        """To be asked once at every step at which the branch is needed, in order."""
        previous, self._previous = self._previous, indicator
        if previous is None or step == 0 or step == self._steps - 1:
            self._accumulated = 0.0
            return True
        self._accumulated += relative_change(indicator, previous)
        if self._accumulated < self._threshold:
            return False
        self._accumulated = 0.0
        return True
