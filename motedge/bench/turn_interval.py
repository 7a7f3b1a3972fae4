"""How sure a median is, by drawing whole turns: ticks of one turn are alike, and count as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
# Fewest turns of which a drawing says anything
FEWEST_TURNS = 3
# Below it an interval of percentiles is known to be too narrow: of 6 turns it misses the truth in about 9 of 100 cases
# in place of 5, of 12 and more in 5 (tests/unit/bench/test_turn_interval.py)
ENOUGH_TURNS = 12
# Rows of drawings that are worked out at once
_BATCH = 1000


@dataclass(frozen=True)
class TurnInterval:
    """A ratio of medians and where the true one lies, as far as the turns tell."""

    ratio: float
    low: float
    high: float


def ratio_by_turns(
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    *,
    confidence: float,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> TurnInterval:
    """Median of `after` over median of `before`, with an interval of percentiles of drawings of turns (cluster
    bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 3.8).

    Args:
        before: turn -> ms of its ticks, all above 0.
        after: as many; turn k of both ran side by side, and both are drawn together.
        confidence: 0 to 1.
        seed: of the drawing.
        resamples: drawings.
    """
    random, ratios = np.random.default_rng(seed), []
    for start in range(0, resamples, _BATCH):
        drawn = drawn_turns(random, min(_BATCH, resamples - start), len(before))
        ratios.append(medians_of(after, drawn) / medians_of(before, drawn))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.concatenate(ratios), [tail, 100 - tail])
    ratio = np.median(np.concatenate(after)) / np.median(np.concatenate(before))
    return TurnInterval(float(ratio), float(low), float(high))


def drawn_turns(random: np.random.Generator, resamples: int, count: int) -> NDArray[np.int64]:
    """How often each turn is drawn [resamples, count]: `count` draws with replacement."""
    return random.multinomial(count, [1 / count] * count, resamples)


def medians_of(turns: Sequence[Sequence[float]], drawn: NDArray[np.int64]) -> Any:
    """Median of the ticks of the turns as often as they were drawn, fp64 [resamples]."""
    ticks = np.concatenate([np.asarray(turn, np.float64) for turn in turns])
    turn_of = np.repeat(np.arange(len(turns)), [len(turn) for turn in turns])
    order = np.argsort(ticks, kind="stable")
    ticks, through = ticks[order], np.cumsum(drawn[:, turn_of[order]], axis=1)
    total = through[:, -1:]
    lower, upper = ((through <= place).sum(axis=1) for place in ((total - 1) // 2, total // 2))
    return (ticks[lower] + ticks[upper]) / 2
