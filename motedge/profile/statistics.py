"""Percentiles that say how many values they stand on, and how unsteady a series is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

import numpy as np

# Fewest values above a percentile of which it still tells something: one in ten, one in a hundred
COUNT_FOR_P90, COUNT_FOR_P99 = 10, 100


@dataclass(frozen=True)
class Summary:
    """Of a series of times, in its unit."""

    count: int
    mean: float
    std: float
    min: float
    p50: float
    # None below COUNT_FOR_P90 and COUNT_FOR_P99 values
    p90: Optional[float]
    p99: Optional[float]
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Optional[Summary]:
        """None of no values. Percentiles are interpolated linearly, as numpy's default; std is the population's."""
        if not len(values):
            return None
        array = np.asarray(values, np.float64)
        count = len(array)

        def percentile(share: float, least: int) -> Optional[float]:
            return float(np.percentile(array, share)) if count >= least else None

        return cls(
            count=count,
            mean=float(array.mean()),
            std=float(array.std()),
            min=float(array.min()),
            p50=float(np.percentile(array, 50)),
            p90=percentile(90, COUNT_FOR_P90),
            p99=percentile(99, COUNT_FOR_P99),
            max=float(array.max()),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form, rounded to a nanosecond where the unit is ms."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


def jitter(values: Sequence[float]) -> dict[str, Any]:
    """How unsteady successive times are, in their unit.

    Returns:
        step_mean: mean |difference| of neighbours, 0 of a single value
        spread: greatest minus least
        tail: p99 minus p50, None below COUNT_FOR_P99 values
    """
    array = np.asarray(values, np.float64)
    steps = np.abs(np.diff(array))
    tail = float(np.percentile(array, 99) - np.percentile(array, 50)) if len(array) >= COUNT_FOR_P99 else None
    return {
        "step_mean": round(float(steps.mean()), 6) if len(steps) else 0.0,
        "spread": round(float(array.max() - array.min()), 6) if len(array) else 0.0,
        "tail": None if tail is None else round(tail, 6),
    }


def missed(values: Sequence[float], limit: float) -> dict[str, Any]:
    """How many of the times are over a limit, by how much at worst, and how many in a row."""
    worst, row, longest = 0.0, 0, 0
    over = [value for value in values if value > limit]
    for value in values:
        row = row + 1 if value > limit else 0
        longest = max(longest, row)
        worst = max(worst, value - limit)
    return {
        "limit": limit,
        "count": len(values),
        "missed": len(over),
        "worst_over": round(worst, 6),
        "in_a_row": longest,
    }
