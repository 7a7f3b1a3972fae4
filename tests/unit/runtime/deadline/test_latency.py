"""The latency tracker: what it predicts before, during and after other load."""

from __future__ import annotations

import random

import pytest

from motedge.errors import InternalError, UsageError
from motedge.runtime.deadline import Ladder, OperatingPoint
from motedge.runtime.deadline.latency import WINDOW, LatencyTracker
from motedge.runtime.request import SamplerSettings

LADDER = Ladder.from_settings(SamplerSettings(guidance_interval=(960.0, 1001.0)))
BEST, _, SHORT, CHEAPEST = LADDER
FIXED, PER_FORWARD = 10.0, 20.0


def time_of(point: OperatingPoint) -> float:
    return FIXED + PER_FORWARD * point.forwards


def tracker(*points: OperatingPoint) -> LatencyTracker:
    """Calibrated at these points."""
    made = LatencyTracker(LADDER)
    for point in points:
        made.calibrate(point, [time_of(point)] * 5)
    return made


def tick(tracked: LatencyTracker, point: OperatingPoint, took_ms: float, count: int = 1) -> None:
    for _ in range(count):
        tracked.begin_tick()
        tracked.observe(point, took_ms)


def test_nothing_measured_nothing_predicted() -> None:
    empty = LatencyTracker(LADDER)
    assert all(empty.predict_ms(point) is None and empty.hope_ms(point) is None for point in LADDER)
    assert empty.to_dict()["shipped"] == {
        "forwards": 5,
        "nominal_ms": None,
        "predicted_ms": None,
        "fitted": True,
        "ticks": 0,
    }


def test_points_never_measured_are_on_the_line() -> None:
    tracked = tracker(BEST, CHEAPEST)
    for point in LADDER:
        assert tracked.predict_ms(point) == pytest.approx(time_of(point))
    assert tracked.to_dict()["2-steps"]["fitted"] and not tracked.to_dict()["shipped"]["fitted"]


def test_one_measured_point_is_scaled_by_forwards() -> None:
    """Too much for better points, which is the safe side."""
    tracked = tracker(CHEAPEST)
    assert tracked.predict_ms(BEST) == pytest.approx(5 * time_of(CHEAPEST))


def test_a_line_never_falls_nor_begins_below_zero() -> None:
    falling = LatencyTracker(LADDER)
    falling.calibrate(BEST, [50.0])
    falling.calibrate(CHEAPEST, [60.0])
    assert falling.predict_ms(SHORT) == pytest.approx(55.0)
    steep = LatencyTracker(LADDER)
    steep.calibrate(BEST, [100.0])
    steep.calibrate(LADDER.point("2-steps"), [1.0])
    predicted = steep.predict_ms(CHEAPEST)
    assert predicted is not None and predicted > 0


def test_warm_up_predicts_its_upper_value() -> None:
    warm = LatencyTracker(LADDER)
    warm.calibrate(BEST, [10.0, 11.0, 12.0, 13.0, 99.0])
    assert warm.predict_ms(BEST) == 13.0 and warm.nominal_ms(BEST) == 12.0


def test_one_outlier_changes_nothing() -> None:
    tracked = tracker(*LADDER)
    tick(tracked, BEST, time_of(BEST), WINDOW)
    tick(tracked, BEST, 10 * time_of(BEST))
    for point in LADDER:
        assert tracked.predict_ms(point) == pytest.approx(time_of(point))


@pytest.mark.parametrize("slowdown", [1.3, 2.0, 10.0])
def test_two_slow_ticks_are_a_slowdown_of_every_point(slowdown: float) -> None:
    tracked = tracker(*LADDER)
    tick(tracked, BEST, time_of(BEST), 5 * WINDOW)
    tick(tracked, BEST, slowdown * time_of(BEST), 2)
    for point in LADDER:
        predicted = tracked.predict_ms(point)
        assert predicted is not None and predicted >= slowdown * time_of(point) - 1e-6


def test_a_slowdown_is_forgotten_after_a_window() -> None:
    tracked = tracker(*LADDER)
    tick(tracked, BEST, 3 * time_of(BEST), WINDOW)
    tick(tracked, CHEAPEST, time_of(CHEAPEST), WINDOW - 1)
    assert tracked.predict_ms(CHEAPEST) == pytest.approx(time_of(CHEAPEST))
    tick(tracked, CHEAPEST, time_of(CHEAPEST))
    assert tracked.predict_ms(BEST) == pytest.approx(time_of(BEST))


def test_ticks_without_a_measurement_age_the_evidence() -> None:
    """Otherwise a policy that refuses what does not fit would refuse for ever."""
    tracked = tracker(*LADDER)
    tick(tracked, BEST, 9 * time_of(BEST), WINDOW)
    for _ in range(WINDOW):
        tracked.begin_tick()
    assert tracked.predict_ms(BEST) == pytest.approx(time_of(BEST))


def test_a_delay_and_a_factor() -> None:
    """Load that adds 60 ms to the cheapest point: the best takes 60 ms more, or three times as long."""
    tracked = tracker(*LADDER)
    tick(tracked, CHEAPEST, time_of(CHEAPEST) + 60, WINDOW)
    assert tracked.predict_ms(BEST) == pytest.approx(3 * time_of(BEST))
    assert tracked.hope_ms(BEST) == pytest.approx(time_of(BEST) + 60)
    # Its own tick settles it
    tick(tracked, BEST, time_of(BEST) + 60)
    assert tracked.predict_ms(BEST) == pytest.approx(time_of(BEST) + 60)
    # Until others show that things have changed since
    tick(tracked, CHEAPEST, 10 * time_of(CHEAPEST), 2)
    assert tracked.predict_ms(BEST) == pytest.approx(10 * time_of(BEST))


def test_without_warm_up_the_first_ticks_are_the_calibration() -> None:
    tracked = LatencyTracker(LADDER)
    tick(tracked, CHEAPEST, 500.0)
    tick(tracked, CHEAPEST, 30.0, 4)
    assert tracked.nominal_ms(CHEAPEST) == 30.0
    tick(tracked, CHEAPEST, 90.0, 40)
    assert tracked.nominal_ms(CHEAPEST) == 30.0 and tracked.predict_ms(CHEAPEST) == 90.0


def test_noise_is_covered_mostly() -> None:
    """Of 2,000 ticks with 5 % noise, at most 15 % take longer than predicted, and 1 % longer than with the margin."""
    source = random.Random(3)
    tracked = tracker(*LADDER)
    beyond = far_beyond = 0
    for _ in range(2000):
        tracked.begin_tick()
        predicted = tracked.predict_ms(BEST)
        took = time_of(BEST) * (1 + 0.05 * abs(source.gauss(0, 1)))
        assert predicted is not None
        beyond += took > predicted
        far_beyond += took > 1.1 * predicted
        tracked.observe(BEST, took)
    assert beyond < 300 and far_beyond < 20


def test_what_is_refused() -> None:
    for wrong in (1, 2.0, True):
        with pytest.raises(UsageError, match="window"):
            LatencyTracker(LADDER, window=wrong)  # type: ignore[arg-type]
    for took in (float("nan"), float("inf"), -1.0):
        with pytest.raises(InternalError, match="took"):
            LatencyTracker(LADDER).observe(BEST, took)
    with pytest.raises(InternalError, match="without a sample"):
        LatencyTracker(LADDER).calibrate(BEST, [])


def test_a_clock_too_coarse_for_the_tick() -> None:
    tracked = LatencyTracker(LADDER)
    tick(tracked, CHEAPEST, 0.0, 3)
    predicted = tracked.predict_ms(BEST)
    assert predicted is not None and 0 < predicted < 1e-3
