"""DeadlinePolicy on simulated time, and on the real thread."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import numpy as np
import pytest
from deadline_simulation import (
    RATE_HZ,
    SimulatedClock,
    SimulatedPolicy,
    SimulatedWorker,
    forwards_of,
    linear_latency,
    make_chunk,
    observation,
)
from policy_fakes import make_policy

from motedge.errors import ContractError, HostError, ObservationError, UsageError
from motedge.runtime.deadline import DeadlineMissedError, DeadlineOptions, DeadlinePolicy, Ladder, with_deadlines
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.policy.seeds import RequestSeeds

SEEN = observation()
EXACT = DeadlineOptions(reply_margin_ms=0.0)


class Scene:
    """A policy on simulated time: 10 ms, and 20 ms a forward, plus whatever `extra_ms` says."""

    def __init__(self, *, warm: bool = True, options: DeadlineOptions = EXACT) -> None:
        self.clock = SimulatedClock()
        self.extra_ms = 0.0
        base = linear_latency(10, 20)
        self.policy = SimulatedPolicy(self.clock, lambda s: base(s) + self.extra_ms / 1e3)
        self.worker = SimulatedWorker(self.clock)
        self.acting = DeadlinePolicy(self.policy, clock=self.clock, worker=self.worker, options=options)
        if warm:
            self.acting.warm_up(SEEN, rounds=2)
            self.policy.acts.clear()

    def tick(self, deadline_ms: float, **given: Any) -> Any:
        return self.acting.act(SEEN, deadline_ms=deadline_ms, **given)


def test_a_tick_in_time() -> None:
    scene = Scene()
    chunk = scene.tick(200, seed=9)
    assert chunk.kind == "fresh" and chunk.first_row == 0 and chunk.age_s == pytest.approx(0.11)
    assert chunk.details == {
        "steps": 4,
        "deadline": {
            "deadline_ms": 200.0,
            "took_ms": 110.0,
            "met": True,
            "operating_point": "shipped",
            "trained": True,
            "forwards": 5,
            "verdict": "fits",
            "predicted_ms": pytest.approx(110.0),
            "rows_left": 32,
        },
    }
    assert scene.policy.acts[0].seed == 9 and scene.policy.acts[0].settings == scene.policy.settings
    assert (scene.acting.counters.ticks, scene.acting.counters.met) == (1, 1)


def test_committed_actions_reach_the_policy_and_no_tick_but_their_own() -> None:
    scene = Scene(warm=False)
    scene.acting.warm_up(SEEN, rounds=1)
    assert [act.committed for act in scene.policy.acts] == [None] * len(scene.policy.acts)
    scene.policy.acts.clear()
    committed = np.full((3, 8), 0.25, np.float32)
    assert scene.tick(200, committed=committed).kind == "fresh"
    # The caller may go on while a late tick still reads them
    committed[:] = 9
    scene.tick(200)
    scene.tick(200, committed=np.zeros((0, 0)))
    given = [act.committed for act in scene.policy.acts]
    assert given[0].dtype == np.float32 and np.array_equal(given[0], np.full((3, 8), 0.25))
    assert given[1] is None and given[2].shape == (0, 0)


def test_committed_actions_go_with_a_trial_and_with_a_late_tick() -> None:
    scene = Scene()
    scene.tick(170)
    # A load that is a delay: its height drives the tick to a cheaper point, and what is left is found out by trials
    scene.extra_ms = 80.0
    for _ in range(10):
        scene.tick(170)
        scene.clock.advance(0.1)
    scene.extra_ms, scene.policy.acts = 40.0, []
    for number in range(60):
        scene.tick(170, committed=np.full((1, 8), number, np.float32))
    assert [act.committed[0, 0] for act in scene.policy.acts] == list(range(60))
    assert scene.acting.counters.trials > 0
    scene.extra_ms = 300.0
    assert scene.tick(200, committed=np.ones((2, 8), np.float32)).kind == "held"
    assert scene.policy.acts[-1].committed.shape == (2, 8)


def test_the_policy_itself_takes_committed_actions_under_a_deadline() -> None:
    committed = np.full((3, 8), 0.25, np.float32)
    with DeadlinePolicy(make_policy()[0], deadline_ms=60_000) as acting:
        assert acting.act(SEEN, committed=committed).details["committed_rows"] == 3
        assert acting.act(SEEN).details["committed_rows"] == 0
        with pytest.raises(ContractError, match="can't be committed"):
            acting.act(SEEN, committed=np.zeros((3, 7), np.float32))
        assert (acting.counters.met, acting.counters.failed) == (2, 1)


def test_less_time_a_cheaper_point() -> None:
    scene = Scene()
    names = [scene.tick(ms).details["deadline"]["operating_point"] for ms in (122, 120, 76, 50)]
    assert names == ["shipped", "2-steps", "2-steps-unguided", "1-step-unguided"]
    assert scene.acting.counters.chosen == dict.fromkeys(names, 1)
    assert [forwards_of(act.settings) for act in scene.policy.acts if act.settings] == [5, 3, 2, 1]


def test_a_late_tick_is_answered_with_the_rest_of_the_last_chunk() -> None:
    scene = Scene()
    scene.tick(200)
    made_from = scene.clock.now_s() - 0.11
    scene.extra_ms = 1000.0
    chunk = scene.tick(200)
    # The reply comes at the deadline: 0.31 s after the observation of the first chunk, of which 4 rows have passed
    assert chunk.kind == "held" and chunk.age_s == pytest.approx(0.31) == scene.clock.now_s() - made_from
    assert chunk.first_row == 4 and chunk.actions[:, 1].tolist() == list(range(4, 32))
    said = chunk.details["deadline"]
    assert (said["met"], said["took_ms"], said["rows_left"]) == (False, 200.0, 28)
    assert (said["held_from"], said["held_trained"], said["operating_point"]) == ("shipped", True, "shipped")
    # The worker is busy for another 0.91 s
    busy = scene.tick(200)
    assert busy.kind == "held" and busy.first_row == 7 and busy.details["deadline"]["operating_point"] is None
    assert busy.details["deadline"]["verdict"] == "crowded-out"
    counters = scene.acting.counters
    assert (counters.ticks, counters.met, counters.missed, counters.held) == (3, 1, 2, 2)
    assert (counters.crowded_out, counters.late_chunks, counters.predicted_misses) == (1, 0, 0)


def test_a_late_chunk_counts_from_its_own_observation() -> None:
    scene = Scene()
    scene.extra_ms = 400.0
    observed_at_s = scene.clock.now_s()
    with pytest.raises(DeadlineMissedError, match=r"within 200 ms(.|\n)*'shipped' \(predicted: 110\.0 ms\)"):
        scene.tick(200)
    scene.clock.advance(1.0)
    scene.extra_ms = 1000.0
    chunk = scene.tick(200)
    assert chunk.kind == "held" and chunk.actions[0, 0] == 0
    assert chunk.age_s == pytest.approx(scene.clock.now_s() - observed_at_s) == pytest.approx(1.4)
    assert chunk.first_row == int(1.4 * RATE_HZ)
    counters = scene.acting.counters
    assert (counters.missed, counters.unanswered, counters.held, counters.late_chunks) == (2, 1, 1, 1)


def test_the_observation_may_be_older_than_the_call() -> None:
    scene = Scene()
    observed_at_s = scene.clock.now_s()
    scene.clock.advance(0.3)
    fresh = scene.tick(200, observed_at_s=observed_at_s)
    assert fresh.kind == "fresh" and fresh.age_s == pytest.approx(0.41) and fresh.details["deadline"]["took_ms"] == 110
    scene.extra_ms = 1000.0
    assert scene.tick(100).age_s == pytest.approx(0.51)


def test_ending_just_too_late_is_late() -> None:
    """The chunk is there, but after the deadline: it is given as what it is."""
    clock = SimulatedClock()

    class Oversleeping(SimulatedWorker):
        def wait(self, job: Any, until_s: float) -> bool:
            ended = super().wait(job, until_s)
            self.clock.advance(0.02)
            return ended

    policy = SimulatedPolicy(clock, linear_latency(10, 20))
    acting = DeadlinePolicy(policy, clock=clock, worker=Oversleeping(clock), options=EXACT)
    chunk = acting.act(SEEN, deadline_ms=40)
    assert chunk.kind == "held" and chunk.first_row == 0 and chunk.age_s == pytest.approx(0.05)
    counters = acting.counters
    assert (counters.met, counters.missed, counters.held, counters.late_chunks) == (0, 1, 1, 1)


def test_the_watchdog_answers_before_the_deadline() -> None:
    scene = Scene(options=DeadlineOptions(reply_margin_ms=5.0))
    scene.extra_ms = 500.0
    began = scene.clock.now_s()
    with pytest.raises(DeadlineMissedError):
        scene.tick(100)
    assert scene.clock.now_s() - began == pytest.approx(0.095)
    # A deadline shorter than the margin is answered at once
    with pytest.raises(DeadlineMissedError):
        scene.tick(3)


def test_nothing_left_is_an_error_not_an_old_row() -> None:
    scene = Scene(options=DeadlineOptions(reply_margin_ms=0.0, max_age_s=0.5))
    scene.tick(200)
    scene.extra_ms = 10_000.0
    kinds = []
    for _ in range(3):
        try:
            kinds.append(scene.tick(200).kind)
        except DeadlineMissedError as error:
            assert "at most 0.5 s old" in str(error) and error.exit_code == 1
            kinds.append("none")
    assert kinds == ["held", "none", "none"]


def test_nothing_fits() -> None:
    cheapest = Scene()
    # Predicted to miss, and met all the same
    cheapest.extra_ms = -15.0
    chunk = cheapest.tick(20)
    assert chunk.kind == "fresh" and chunk.details["deadline"]["verdict"] == "impossible"
    assert (cheapest.acting.counters.predicted_misses, cheapest.acting.counters.met) == (1, 1)
    refusing = Scene(options=DeadlineOptions(reply_margin_ms=0.0, on_impossible="error"))
    with pytest.raises(DeadlineMissedError, match=r"nothing was started(.|\n)*30\.0 ms"):
        refusing.tick(20)
    refusing.tick(200)
    assert refusing.tick(20).kind == "held"
    counters = refusing.acting.counters
    assert (counters.predicted_misses, counters.refused, counters.missed) == (2, 2, 2)
    assert len(refusing.policy.acts) == 1


def test_who_refuses_what_does_not_fit_tries_again_later() -> None:
    scene = Scene(options=DeadlineOptions(reply_margin_ms=0.0, on_impossible="error"))
    scene.extra_ms = 500.0
    kinds = []
    for number in range(60):
        if number == 10:
            scene.extra_ms = 0.0
        began = scene.clock.now_s()
        try:
            kinds.append(scene.tick(150).kind)
        except DeadlineMissedError:
            kinds.append("none")
        scene.clock.advance(max(began + 0.2 - scene.clock.now_s(), 0))
    assert "fresh" not in kinds[:10] and kinds[-30:] == ["fresh"] * 30


def test_the_policys_errors_come_through() -> None:
    scene = Scene()
    scene.policy.error = lambda number: ObservationError("too long") if number == 1 else None
    scene.tick(200)
    with pytest.raises(ObservationError, match="too long"):
        scene.tick(200)
    assert scene.tick(200).kind == "fresh"
    counters = scene.acting.counters
    assert (counters.ticks, counters.met, counters.missed, counters.failed) == (3, 2, 0, 1)


def test_an_error_after_the_deadline_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.tick(200)
    scene.extra_ms, scene.policy.error = 300.0, lambda number: RuntimeError("the GPU is gone")
    assert scene.tick(200).kind == "held"
    scene.extra_ms, scene.policy.error = 0.0, None
    scene.clock.advance(1.0)
    with caplog.at_level(logging.WARNING):
        assert scene.tick(200).kind == "fresh"
    counters = scene.acting.counters
    assert (counters.late_errors, counters.failed, counters.missed) == (1, 0, 1)
    assert counters.last_late_error == "RuntimeError: the GPU is gone" and "the GPU is gone" in caplog.text


def test_numbers_that_are_none_are_never_given() -> None:
    scene = Scene()
    bad = make_chunk()
    bad.actions[3, 3] = np.nan
    scene.policy.act = lambda *_, **__: bad  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="the policy returned NaN"):
        scene.tick(200)
    assert not scene.acting._last.covers(scene.clock.now_s())


@pytest.mark.parametrize("wrong", [0, -5, float("nan"), float("inf"), -float("inf"), True, "50", [50]])
def test_deadlines_that_are_none(wrong: Any) -> None:
    scene = Scene()
    with pytest.raises(UsageError, match="the deadline is wrong"):
        scene.tick(wrong)
    with pytest.raises(UsageError, match="the deadline is wrong"):
        with_deadlines(scene.policy, deadline_ms=wrong)
    assert scene.acting.counters.ticks == 0 and not scene.policy.acts


def test_the_policys_own_deadline() -> None:
    scene = Scene()
    with pytest.raises(UsageError, match="no deadline"):
        scene.acting.act(SEEN)
    acting = with_deadlines(
        scene.policy, deadline_ms=np.float32(500), clock=scene.clock, worker=SimulatedWorker(scene.clock)
    )
    assert acting.act(SEEN).details["deadline"]["deadline_ms"] == 500.0
    assert acting.act(SEEN, deadline_ms=250).details["deadline"]["deadline_ms"] == 250.0


@pytest.mark.parametrize("wrong", [1e9, float("nan"), "now"])
def test_observations_of_the_future(wrong: Any) -> None:
    with pytest.raises(UsageError, match="time of the observation"):
        Scene().tick(100, observed_at_s=wrong)


def test_warm_up() -> None:
    scene = Scene(warm=False)
    warm = scene.policy.latency
    # A point's first two ticks are cold
    scene.policy.latency = lambda s: warm(s) + 5.0 * ([act.settings for act in scene.policy.acts].count(s) <= 2)
    latencies = scene.acting.warm_up(SEEN, rounds=3)
    assert len(scene.policy.acts) == 4 * (2 + 3) and {act.seed for act in scene.policy.acts} == {0}
    assert latencies["2-steps"]["nominal_ms"] == pytest.approx(70.0) and latencies["2-steps"]["ticks"] == 0
    assert scene.acting.counters.ticks == 0
    # Its chunks belong to nobody's request
    scene.extra_ms = 1000.0
    with pytest.raises(DeadlineMissedError):
        scene.tick(10)
    for wrong in (0, 1.5, True):
        with pytest.raises(UsageError, match="warm-up rounds"):
            scene.acting.warm_up(SEEN, rounds=wrong)  # type: ignore[arg-type]


def test_without_warm_up_the_cheapest_comes_first() -> None:
    scene = Scene(warm=False)
    verdicts = [scene.tick(1000).details["deadline"] for _ in range(2)]
    assert (verdicts[0]["operating_point"], verdicts[0]["verdict"]) == ("1-step-unguided", "unknown")
    assert verdicts[0]["predicted_ms"] is None and verdicts[1]["operating_point"] == "shipped"


def test_an_interrupted_wait_is_counted_and_nothing_is_lost() -> None:
    scene = Scene()
    wait = scene.worker.wait

    def interrupted(job: Any, until_s: float) -> bool:
        raise KeyboardInterrupt

    scene.worker.wait = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        scene.tick(200)
    scene.worker.wait = wait  # type: ignore[method-assign]
    # What ran on is waited for and collected
    assert scene.tick(300).kind == "fresh"
    counters = scene.acting.counters
    assert (counters.ticks, counters.failed, counters.met, counters.late_chunks) == (2, 1, 1, 1)


def test_closing() -> None:
    scene = Scene()
    with scene.acting as acting:
        acting.act(SEEN, deadline_ms=200)
    acting.close()
    assert scene.policy.closed == 1
    with pytest.raises(HostError, match="closed"):
        scene.tick(200)


def test_untrained_points_are_marked() -> None:
    scene = Scene()
    text = '[[points]]\nname = "odd"\nshift = 9\ntrained = false\n'
    ladder = Ladder.from_text(f'schema = "motedge.ladder/v1"\n{text}', scene.policy.settings)
    acting = DeadlinePolicy(scene.policy, ladder, clock=scene.clock, worker=SimulatedWorker(scene.clock))
    assert acting.act(SEEN, deadline_ms=500).details["deadline"]["trained"] is False


def test_the_real_policy_and_the_real_thread() -> None:
    policy, fakes = make_policy()
    with with_deadlines(policy, deadline_ms=60_000) as acting:
        acting.warm_up(SEEN, rounds=1)
        requests = len(fakes.loop.requests)
        chunk = acting.act(SEEN)
        assert chunk.kind == "fresh" and chunk.details["deadline"]["operating_point"] == "shipped"
        # Warm-up has taken none of the policy's seeds
        assert chunk.seed == RequestSeeds(0).peek()
        assert len(fakes.loop.requests) == requests + 1
    assert fakes.vae.closed and fakes.loop.closed


def test_a_stall_on_the_real_thread() -> None:
    policy, fakes = make_policy()
    release, run = threading.Event(), fakes.loop.run
    acting = with_deadlines(policy, deadline_ms=60_000)
    acting.act(SEEN)

    def stalled(*given: Any) -> Any:
        release.wait(30)
        return run(*given)

    fakes.loop.run = stalled
    began = time.monotonic()
    chunk = acting.act(SEEN, deadline_ms=80)
    assert chunk.kind == "held" and time.monotonic() - began < 10
    with pytest.raises(HostError, match="still running"):
        acting.close(timeout_s=0.02)
    assert not fakes.vae.closed
    release.set()
    acting.close()
    assert fakes.vae.closed


def test_two_callers_at_once() -> None:
    policy, fakes = make_policy()
    release, entered, run = threading.Event(), threading.Event(), fakes.loop.run
    acting = with_deadlines(policy, deadline_ms=60_000)

    def stalled(*given: Any) -> Any:
        entered.set()
        release.wait(30)
        return run(*given)

    fakes.loop.run = stalled
    other = threading.Thread(target=acting.act, args=(SEEN,))
    other.start()
    assert entered.wait(30)
    for call in (acting.act, acting.warm_up):
        with pytest.raises(UsageError, match="two ticks at once"):
            call(SEEN)
    release.set()
    other.join(30)
    assert (acting.counters.ticks, acting.counters.met) == (1, 1)
    acting.close()
