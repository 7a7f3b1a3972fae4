"""Percentiles against numpy and scipy, and when they are not told."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from motedge.profile.statistics import Summary, jitter, missed


def test_summary_is_numpys() -> None:
    values = np.random.default_rng(3).gamma(9.0, 2.0, 250)
    summary = Summary.of(values)
    assert summary is not None and summary.count == 250
    for share, value in ((50, summary.p50), (90, summary.p90), (99, summary.p99)):
        assert value == pytest.approx(np.percentile(values, share))
        assert value == pytest.approx(stats.scoreatpercentile(values, share))
    assert (summary.mean, summary.std) == pytest.approx((values.mean(), stats.tstd(values, ddof=0)))
    assert (summary.min, summary.max) == (values.min(), values.max())


@pytest.mark.parametrize(
    ("count", "p90", "p99"),
    [(1, False, False), (9, False, False), (10, True, False), (99, True, False), (100, True, True)],
)
def test_percentiles_need_values_above_them(count: int, p90: bool, p99: bool) -> None:
    summary = Summary.of([1.0] * count)
    assert summary is not None
    assert (summary.p90 is not None, summary.p99 is not None) == (p90, p99)
    assert summary.to_dict()["count"] == count


def test_nothing_has_no_summary() -> None:
    assert Summary.of([]) is None


def test_jitter() -> None:
    assert jitter([10.0, 12.0, 9.0]) == {"step_mean": 2.5, "spread": 3.0, "tail": None}
    assert jitter([4.0]) == {"step_mean": 0.0, "spread": 0.0, "tail": None}
    values = list(range(101))
    assert jitter(values)["tail"] == pytest.approx(49.0)


def test_missed_counts_the_longest_row() -> None:
    found = missed([5.0, 11.0, 12.0, 10.0, 13.0], 10.0)
    assert found == {"limit": 10.0, "count": 5, "missed": 3, "worst_over": 3.0, "in_a_row": 2}
    assert missed([1.0], 10.0)["in_a_row"] == 0
