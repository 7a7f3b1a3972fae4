"""How sure one can be of differences and of a rank correlation. Intervals hold 95 %."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

RESAMPLES = 5_000
_TAIL = 2.5
# Fewer rows than this, and a correlation says nothing
ROWS_MIN = 5


@dataclass(frozen=True)
class Paired:
    """Two rows on the same roads and behaviours."""

    drives: int
    # Drives in which one succeeded and the other not
    first_only: int
    second_only: int
    # Success of the second minus the first, and its interval by roads drawn anew
    difference: float
    low: float
    high: float
    # McNemar's exact test, two-sided: how likely so uneven a split is if neither is better
    p: float

    def to_dict(self) -> dict[str, Any]:
        """JSON form; p to three digits, however small."""
        rounded = {name: round(value, 5) if isinstance(value, float) else value for name, value in vars(self).items()}
        return {**rounded, "p": float(f"{self.p:.3g}")}


def paired(
    first: Mapping[tuple[int, str], bool], second: Mapping[tuple[int, str], bool], seed: int = 0
) -> Optional[Paired]:
    """Compares successes by (road's seed, behaviour); None where they share no drive.

    Roads are drawn anew as a whole: the four drives on one are not independent of each other.
    """
    from scipy.stats import binomtest

    shared = sorted(set(first) & set(second))
    if not shared:
        return None
    difference = np.array([float(second[key]) - float(first[key]) for key in shared])
    first_only, second_only = int((difference < 0).sum()), int((difference > 0).sum())
    roads = np.array([key[0] for key in shared])
    names = np.unique(roads)
    sums = np.array([difference[roads == name].sum() for name in names])
    counts = np.array([(roads == name).sum() for name in names])
    drawn = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [_TAIL, 100 - _TAIL])
    uneven = first_only + second_only
    p = float(binomtest(first_only, uneven).pvalue) if uneven else 1.0
    return Paired(len(shared), first_only, second_only, float(difference.mean()), float(low), float(high), p)


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over rows."""

    rows: int
    # None where one of the two is the same in all rows, or where there are too few
    rho: Optional[float]
    low: Optional[float]
    high: Optional[float]
    # Why there is none
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in vars(self).items()}


def rank_correlation(x: Sequence[float], y: Sequence[float], seed: int = 0) -> Correlation:
    """Spearman's rho (ties share the mean rank), with a percentile interval over rows drawn anew.

    Raises:
        ValueError: of different lengths.
    """
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} values")
    count = len(first)
    if count < ROWS_MIN:
        return Correlation(count, None, None, None, f"fewer than {ROWS_MIN} rows")
    rho = _rho(first, second)
    if rho is None:
        return Correlation(count, None, None, None, "one of the two is the same in all rows")
    random = np.random.default_rng(seed)
    drawn = [_rho(first[some], second[some]) for some in random.integers(0, count, (RESAMPLES // 5, count))]
    low, high = np.percentile([value for value in drawn if value is not None], [_TAIL, 100 - _TAIL])
    return Correlation(count, rho, float(low), float(high))


def _rho(x: Any, y: Any) -> Optional[float]:
    from scipy.stats import spearmanr

    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(spearmanr(x, y).statistic)
