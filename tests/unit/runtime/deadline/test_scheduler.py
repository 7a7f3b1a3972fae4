"""The choice of an operating point."""

from __future__ import annotations

import pytest

from motedge.errors import UsageError
from motedge.runtime.deadline import DeadlineOptions, Ladder
from motedge.runtime.deadline.latency import WINDOW, LatencyTracker
from motedge.runtime.deadline.scheduler import (
    CROWDED_OUT,
    FITS,
    IMPOSSIBLE,
    REFUSED,
    TRIAL,
    UNKNOWN,
    Choice,
    Scheduler,
)
from motedge.runtime.request import SamplerSettings

LADDER = Ladder.from_settings(SamplerSettings(guidance_interval=(960.0, 1001.0)))
BEST, SECOND, SHORT, CHEAPEST = LADDER
# 5, 3, 2, 1 forwards
TIMES = {"shipped": 110.0, "2-steps": 70.0, "2-steps-unguided": 50.0, "1-step-unguided": 30.0}


def made(**options: object) -> tuple[Scheduler, LatencyTracker]:
    tracker = LatencyTracker(LADDER)
    for point in LADDER:
        tracker.calibrate(point, [TIMES[point.name]] * 5)
    return Scheduler(LADDER, tracker, DeadlineOptions(**options)), tracker  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("left_ms", "name"),
    [(1e6, "shipped"), (121.1, "shipped"), (120.9, "2-steps"), (77.1, "2-steps"), (76.9, "2-steps-unguided")],
)
def test_the_best_that_fits_with_its_margin(left_ms: float, name: str) -> None:
    choice = made()[0].choose(left_ms, left_ms)
    assert choice.point is not None and choice.point.name == name
    assert choice == Choice(choice.point, FITS, TIMES[name]) and not choice.predicted_miss


def test_nothing_fits() -> None:
    assert made()[0].choose(20.0, 20.0) == Choice(CHEAPEST, IMPOSSIBLE, 30.0)
    assert made(on_impossible="error")[0].choose(20.0, 20.0) == Choice(None, REFUSED, 30.0)
    # An earlier tick has eaten the time: the next one, with all of it, is served better
    for on_impossible in ("cheapest", "error"):
        assert made(on_impossible=on_impossible)[0].choose(20.0, 100.0) == Choice(None, CROWDED_OUT, 30.0)
    assert all(Choice(CHEAPEST, verdict, 1.0).predicted_miss for verdict in (IMPOSSIBLE, REFUSED, CROWDED_OUT))


def test_nothing_known() -> None:
    scheduler = Scheduler(LADDER, LatencyTracker(LADDER), DeadlineOptions())
    assert scheduler.choose(20.0, 20.0) == Choice(CHEAPEST, UNKNOWN, None)


def delayed() -> tuple[Scheduler, LatencyTracker]:
    """60 ms more for the cheapest: by the factor, all others take three times as long, and none fits 150 ms."""
    scheduler, tracker = made()
    for _ in range(WINDOW):
        tracker.begin_tick()
        tracker.observe(CHEAPEST, 90.0)
        scheduler.settle(Choice(CHEAPEST, FITS, 90.0), True)
    return scheduler, tracker


def test_trials() -> None:
    scheduler, tracker = delayed()
    assert scheduler.choose(150.0, 150.0, may_try=False).point == CHEAPEST
    choice = scheduler.choose(150.0, 150.0, may_try=True)
    # One rung at a time
    assert (choice.point, choice.verdict) == (SHORT, TRIAL) and choice.predicted_ms == pytest.approx(150.0)
    scheduler.settle(choice, True)
    tracker.begin_tick()
    tracker.observe(SHORT, 110.0)
    assert scheduler.choose(150.0, 150.0, may_try=True) == Choice(SHORT, FITS, 110.0)


def test_trials_can_be_switched_off() -> None:
    _, tracker = delayed()
    scheduler = Scheduler(LADDER, tracker, DeadlineOptions(trials=False))
    for _ in range(100):
        scheduler.settle(Choice(CHEAPEST, FITS, 90.0), True)
    assert scheduler.choose(150.0, 150.0, may_try=True).verdict == FITS


def test_no_trial_without_hope() -> None:
    scheduler, _ = delayed()
    # The delay alone gives 110 ms, which with its margin does not fit 120
    assert scheduler.choose(120.0, 120.0, may_try=True).verdict == FITS


def test_failed_trials_become_rare() -> None:
    scheduler, _ = delayed()
    gaps = []
    for _ in range(6):
        choice = scheduler.choose(150.0, 150.0, may_try=True)
        assert choice.verdict == TRIAL
        scheduler.settle(choice, False)
        gap = 0
        while (choice := scheduler.choose(150.0, 150.0, may_try=True)).verdict != TRIAL:
            scheduler.settle(choice, True)
            gap += 1
        gaps.append(gap)
    assert gaps == [32, 64, 128, 256, 256, 256]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_impossible": "chepest"}, "did you mean 'cheapest'"),
        ({"margin": -0.1}, "margin is wrong"),
        ({"margin": float("nan")}, "margin is wrong"),
        ({"reply_margin_ms": float("inf")}, "reply_margin_ms is wrong"),
        ({"max_age_s": 0.0}, "max_age_s is wrong"),
        ({"max_age_s": True}, "max_age_s is wrong"),
    ],
)
def test_options_that_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DeadlineOptions(**options)  # type: ignore[arg-type]
