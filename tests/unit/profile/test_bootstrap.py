"""The interval of a ratio of medians: beside scipy's bootstrap, its coverage, and what blocks and pairs are for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from motedge.profile.bootstrap import ratio_of_medians
from motedge.profile.dependence import dependence


def _times(seed: int, count: int = 120, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).gamma(400.0, 0.025, count)


def test_tick_by_tick_it_is_scipys() -> None:
    before, after = _times(1), _times(2, 90, 1.1)
    ours = ratio_of_medians(before, after, confidence=0.95, paired=False, block=1)
    theirs = stats.bootstrap(
        (before, after),
        lambda a, b, axis: np.median(b, axis=axis) / np.median(a, axis=axis),
        method="percentile",
        n_resamples=10_000,
        random_state=5,
    ).confidence_interval
    assert ours.ratio == pytest.approx(np.median(after) / np.median(before))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)


def test_the_same_seed_gives_the_same_interval() -> None:
    before, after = _times(1), _times(2)
    first = ratio_of_medians(before, after, confidence=0.95, paired=False, seed=3)
    assert first == ratio_of_medians(before, after, confidence=0.95, paired=False, seed=3)
    assert first.low <= first.ratio <= first.high


@pytest.mark.slow
def test_it_holds_one_as_often_as_it_says() -> None:
    held = [
        ratio_of_medians(_times(seed), _times(seed + 1000), confidence=0.95, paired=False).holds_one
        for seed in range(100)
    ]
    assert 88 <= sum(held) <= 100


def _drifting(seed: int, count: int = 200) -> np.ndarray:
    """Neighbours that are alike: a clock that goes up and down."""
    random = np.random.default_rng(seed)
    drift = np.zeros(count)
    for index in range(1, count):
        drift[index] = 0.9 * drift[index - 1] + random.normal(0, 0.02)
    return 10 * (1 + drift) + random.normal(0, 0.02, count)


def test_blocks_widen_the_interval_of_ticks_that_are_alike() -> None:
    before, after = _drifting(1), _drifting(2)
    single = ratio_of_medians(before, after, confidence=0.95, paired=False, block=1)
    blocks = ratio_of_medians(before, after, confidence=0.95, paired=False)
    assert blocks.high - blocks.low > 1.3 * (single.high - single.low)


def _autoregressive(seed: int, rho: float, count: int = 500) -> np.ndarray:
    random = np.random.default_rng(seed)
    noise, values = random.normal(0, np.sqrt(1 - rho**2), count), np.zeros(count)
    values[0] = random.normal()
    for index in range(1, count):
        values[index] = rho * values[index - 1] + noise[index]
    return 20 + values


def test_independent_ticks_count_in_full() -> None:
    found = [dependence(_autoregressive(seed, 0.0)) for seed in range(20)]
    assert np.median([each.block for each in found]) == round(500 ** (1 / 3))
    assert np.median([each.independent for each in found]) > 0.9 * 500


def test_ticks_that_are_alike_count_for_fewer() -> None:
    # The sides of a normal AR(1) correlate by 2/pi asin(rho^k)
    rho, lags = 0.9, np.arange(1, 500)
    expected = 500 / (1 + 2 * (2 / np.pi * np.arcsin(rho**lags)).sum())
    found = [dependence(_autoregressive(seed, rho)) for seed in range(40)]
    assert np.median([each.independent for each in found]) == pytest.approx(expected, rel=0.35)
    assert np.median([each.block for each in found]) > 2 * round(500 ** (1 / 3))


@pytest.mark.parametrize("values", [[3.0], [3.0] * 30, [1.0, 2.0], [1.0, 2.0] * 20, list(range(50))])
def test_any_values_have_blocks(values: list[float]) -> None:
    found = dependence(values)
    assert 1 <= found.block <= len(values) and 0 < found.independent <= len(values)


@pytest.mark.slow
def test_it_holds_one_of_ticks_that_are_alike() -> None:
    held = dict.fromkeys((None, 8), 0)
    for seed in range(60):
        sides = _autoregressive(seed, 0.9), _autoregressive(seed + 1000, 0.9)
        for block in held:
            held[block] += ratio_of_medians(*sides, confidence=0.95, paired=False, block=block).holds_one
    # Measured over 200: 0.875 with blocks as long as it asks for, 0.69 with the cube root of the count
    assert held[None] >= 47 and held[None] > held[8] + 5


def test_pairs_cancel_what_both_have() -> None:
    drift, random = _drifting(1), np.random.default_rng(4)
    before = drift * (1 + random.normal(0, 0.002, len(drift)))
    after = 1.02 * drift * (1 + random.normal(0, 0.002, len(drift)))
    apart = ratio_of_medians(before, after, confidence=0.95, paired=False)
    in_turn = ratio_of_medians(before, after, confidence=0.95, paired=True)
    assert in_turn.high - in_turn.low < 0.5 * (apart.high - apart.low)
    assert 1.0 < in_turn.low < 1.02 < in_turn.high


def test_pairs_of_unequal_counts_are_cut() -> None:
    found = ratio_of_medians([1.0] * 20, [2.0] * 15, confidence=0.95, paired=True)
    assert (found.ratio, found.low, found.high) == (2.0, 2.0, 2.0)
