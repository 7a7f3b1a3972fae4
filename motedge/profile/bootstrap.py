"""How sure a ratio of medians is, by resampling: successive ticks are alike, so whole blocks of them are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from motedge.profile.dependence import dependence

RESAMPLES = 10_000
# Rows of medians that are worked out at once
_BATCH = 1000


@dataclass(frozen=True)
class Interval:
    """A ratio and where the true one lies, as far as the ticks tell."""

    ratio: float
    low: float
    high: float

    @property
    def holds_one(self) -> bool:
        """Whether no change at all is among what is possible."""
        return self.low <= 1.0 <= self.high


def ratio_of_medians(
    before: Any, after: Any, *, confidence: float, paired: bool, seed: int = 0, block: Optional[int] = None
) -> Interval:
    """Median of `after` over median of `before`, with a percentile interval of block-bootstrap resamples.

    Kuensch's moving blocks, wrapped round at the end; a block is as long as what neighbouring ticks have in common
    (clocks that rise, another program's burst) asks for.

    Args:
        before: times [n], all above 0.
        after: times [m], all above 0.
        confidence: 0 to 1.
        paired: tick i of both ran side by side; both are then drawn alike, so that what slows both cancels.
        seed: of the drawing.
        block: another length of the blocks; 1 draws ticks one by one.
    """
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if paired:
        count = min(len(first), len(second))
        first, second = first[:count], second[:count]
    # Of pairs it is what their ratios have in common that is left
    series = (second / first,) * 2 if paired else (first, second)
    lengths = [dependence(values).block if block is None else block for values in series]
    random = np.random.default_rng(seed)
    ratios = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, _BATCH):
        rows = min(_BATCH, RESAMPLES - start)
        drawn = _drawn(random, rows, len(first), lengths[0])
        others = drawn if paired else _drawn(random, rows, len(second), lengths[1])
        ratios[start : start + rows] = np.median(second[others], axis=1) / np.median(first[drawn], axis=1)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Interval(float(np.median(second) / np.median(first)), float(low), float(high))


def _drawn(random: np.random.Generator, rows: int, count: int, length: int) -> Any:
    """Indices [rows, count] of blocks that begin anywhere."""
    blocks = math.ceil(count / length)
    starts = random.integers(0, count, (rows, blocks, 1))
    drawn = (starts + np.arange(length)) % count
    return drawn.reshape(rows, -1)[:, :count]
