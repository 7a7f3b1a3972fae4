"""What successive ticks have in common, and what that leaves of their number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

# Successive lags without correlation after which the rest counts as none
_QUIET_LAGS = 5
# Of the count: longer blocks leave too few of them to draw from
_LONGEST_SHARE = 0.25


@dataclass(frozen=True)
class Dependence:
    """Of values that follow each other, as far as their median goes."""

    # Length of a bootstrap's blocks: at least the cube root of the count
    block: int
    # How many independent values would tell as much
    independent: float


def dependence(values: Any) -> Dependence:
    """How much each of the values says about those after it.

    Blocks after Politis and White (2004) with the correction of Patton, Politis and White (2009), for circular ones.
    A median depends on which side of it the values lie, so it is the correlation of the sides that counts.

    Args:
        values: times [n], n > 0, in the order in which they were taken.
    """
    sides = np.sign(np.asarray(values, np.float64) - np.median(values))
    count = len(sides)
    longest = max(1, math.ceil(_LONGEST_SHARE * count))
    least = min(max(1, round(count ** (1 / 3))), longest)
    covariance = _autocovariance(sides - sides.mean())
    lags = _last_lag(covariance / covariance[0], count) if covariance[0] > 0 else 0
    if lags == 0:
        return Dependence(least, float(count))
    k = np.arange(1, min(2 * lags, count - 1) + 1)
    # A flat-topped window: whole up to half of its lags, then falling to nothing
    weighted = np.clip(2 * (1 - k / (2 * lags)), 0, 1) * covariance[k]
    spread = covariance[0] + 2 * weighted.sum()
    if spread <= 0:
        return Dependence(least, float(count))
    bend = 2 * (k * weighted).sum()
    block = round((1.5 * (bend / spread) ** 2 * count) ** (1 / 3))
    return Dependence(int(np.clip(block, least, longest)), float(min(count, count * covariance[0] / spread)))


def _autocovariance(centred: Any) -> Any:
    """Of lags 0 to n - 1."""
    count = len(centred)
    power = np.abs(np.fft.rfft(centred, 2 * count)) ** 2
    return np.fft.irfft(power)[:count] / count


def _last_lag(correlation: Any, count: int) -> int:
    """The last lag that is followed by a few which can't be told from none."""
    limit = 2 * math.sqrt(math.log10(count) / count)
    quiet = np.abs(correlation[1:]) < limit
    for lag in range(len(quiet)):
        if quiet[lag : lag + _QUIET_LAGS].all():
            return lag
    return max(0, count // 2 - 1)
