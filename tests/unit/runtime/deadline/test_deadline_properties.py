"""What holds whatever happens: random latencies, load, stalls, errors and deadlines on simulated time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from deadline_simulation import RATE_HZ, SimulatedClock, SimulatedPolicy, SimulatedWorker, forwards_of, observation
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.runtime.deadline import DeadlineMissedError, DeadlineOptions, DeadlinePolicy
from motedge.runtime.request import SamplerSettings

SEEN = observation()
# A tick of the simulation: share of slowdown, added delay in ms, deadline in ms, pause before it in ms, age of the
# observation in ms, whether it fails
TICKS = st.lists(
    st.tuples(
        st.one_of(st.just(1.0), st.floats(0.2, 20)),
        st.one_of(st.just(0.0), st.floats(0, 3000)),
        st.floats(0.5, 500),
        st.floats(0, 400),
        st.floats(0, 300),
        st.sampled_from([False] * 6 + [True]),
    ),
    max_size=40,
)
OPTIONS = st.builds(
    DeadlineOptions,
    reply_margin_ms=st.sampled_from([0.0, 1.0, 20.0]),
    on_impossible=st.sampled_from(["cheapest", "error"]),
    max_age_s=st.sampled_from([None, 0.4]),
    trials=st.booleans(),
)


class Boom(Exception):
    """The policy's own failure."""


class Simulation:
    """Runs ticks and notes each reply with its moments."""

    def __init__(self, options: DeadlineOptions, warm: bool) -> None:
        self.clock = SimulatedClock()
        self.factor, self.delay_ms, self.fails = 1.0, 0.0, False
        self.policy = SimulatedPolicy(self.clock, self._latency, error=lambda _: Boom() if self.fails else None)
        self.acting = DeadlinePolicy(self.policy, clock=self.clock, worker=SimulatedWorker(self.clock), options=options)
        # Observation of each act that reached the policy, by its number
        self.observed_at: dict[int, float] = {}
        self.outcomes: list[str] = []
        if warm:
            self.acting.warm_up(SEEN, rounds=2)

    def _latency(self, sampler: SamplerSettings) -> float:
        return ((10 + 20 * forwards_of(sampler)) * self.factor + self.delay_ms) / 1e3

    def tick(self, deadline_ms: float, age_ms: float = 0.0) -> Any:
        """One tick; the chunk, or None."""
        began_s, acts = self.clock.now_s(), len(self.policy.acts)
        observed_at_s = began_s - age_ms / 1e3
        chunk = None
        try:
            chunk = self.acting.act(SEEN, deadline_ms=deadline_ms, observed_at_s=observed_at_s)
            self.outcomes.append(chunk.kind)
        except DeadlineMissedError:
            self.outcomes.append("unanswered")
        except Boom:
            self.outcomes.append("failed")
        if len(self.policy.acts) > acts:
            self.observed_at[acts] = observed_at_s
        # An answer of whatever kind is there by the deadline
        assert self.clock.now_s() <= began_s + deadline_ms / 1e3 + 1e-9
        if chunk is not None:
            self._check(chunk, acts, observed_at_s)
        return chunk

    def _check(self, chunk: Any, number: int, observed_at_s: float) -> None:
        now_s, made_by = self.clock.now_s(), int(chunk.actions[0, 0])
        said = chunk.details["deadline"]
        # Fresh exactly where it comes from this observation, in time; and said alike in both places
        assert said["met"] == (chunk.kind == "fresh")
        if chunk.kind == "fresh":
            assert made_by == number and chunk.first_row == 0 and len(chunk.actions) == 32
            assert chunk.age_s == pytest.approx(now_s - observed_at_s)
        else:
            true_s = self.observed_at[made_by]
            assert chunk.age_s == pytest.approx(now_s - true_s)
            due_s = true_s + (np.arange(32) + 1) / RATE_HZ
            ahead = np.flatnonzero(due_s > now_s)
            assert chunk.actions[:, 1].tolist() == ahead.tolist() and chunk.first_row == ahead[0]
            # The latest observation of which there is a chunk
            ended = {act: self.policy.acts[act].ended_at_s for act in self.observed_at}
            made = [act for act, end_s in ended.items() if end_s is not None and end_s <= now_s]
            assert true_s == max(self.observed_at[act] for act in made)

    def check_counters(self) -> None:
        """No tick goes uncounted, and each is counted as what it was."""
        counters = self.acting.counters
        assert counters.ticks == len(self.outcomes) == counters.met + counters.missed + counters.failed
        count = self.outcomes.count
        assert (counters.met, counters.failed) == (count("fresh"), count("failed"))
        assert (counters.held, counters.unanswered) == (count("held"), count("unanswered"))
        assert counters.missed == counters.held + counters.unanswered
        assert sum(counters.chosen.values()) == len(self.observed_at)
        not_started = counters.refused + counters.crowded_out
        assert counters.ticks == sum(counters.chosen.values()) + not_started


@settings(max_examples=150, deadline=None)
@given(OPTIONS, st.booleans(), TICKS)
def test_whatever_happens(options: DeadlineOptions, warm: bool, ticks: list[tuple[Any, ...]]) -> None:
    simulation = Simulation(options, warm)
    offset = len(simulation.policy.acts)
    assert offset == (4 * (2 + 2) if warm else 0)
    for factor, delay_ms, deadline_ms, pause_ms, age_ms, fails in ticks:
        simulation.clock.advance(pause_ms / 1e3)
        simulation.factor, simulation.delay_ms, simulation.fails = factor, delay_ms, fails
        simulation.tick(deadline_ms, age_ms)
        simulation.check_counters()


@settings(max_examples=100, deadline=None)
@given(OPTIONS, TICKS)
def test_the_choice_is_the_best_that_its_prediction_allows(options: DeadlineOptions, ticks: list[Any]) -> None:
    simulation = Simulation(options, warm=True)
    tracker = simulation.acting._tracker
    seen: list[tuple[Any, float, dict[str, float]]] = []
    choose: Callable[..., Any] = simulation.acting._scheduler.choose

    def noted(left_ms: float, whole_ms: float, *, may_try: bool = False) -> Any:
        choice = choose(left_ms, whole_ms, may_try=may_try)
        seen.append((choice, left_ms, {p.name: tracker.predict_ms(p) or 0 for p in simulation.acting.ladder}))
        return choice

    simulation.acting._scheduler.choose = noted  # type: ignore[method-assign]
    for factor, delay_ms, deadline_ms, pause_ms, age_ms, fails in ticks:
        simulation.clock.advance(pause_ms / 1e3)
        simulation.factor, simulation.delay_ms, simulation.fails = factor, delay_ms, fails
        simulation.tick(deadline_ms, age_ms)
    for choice, left_ms, predictions in seen:
        fitting = [name for name, ms in predictions.items() if ms * 1.1 <= left_ms]
        if choice.verdict == "fits":
            assert choice.point.name == fitting[0] and choice.predicted_ms == predictions[choice.point.name]
        elif choice.verdict == "trial":
            assert options.trials and choice.point.name not in fitting[:1] and fitting
        else:
            assert not fitting and choice.predicted_miss


def drive(simulation: Simulation, ticks: int, deadline_ms: float, period_ms: float, noise: random.Random) -> list[str]:
    """Ticks of a steady period with 3 % noise; the point of each, or what became of it."""
    said = []
    for _ in range(ticks):
        began_s = simulation.clock.now_s()
        base, simulation.factor = simulation.factor, simulation.factor * (1 + 0.03 * noise.random())
        chunk = simulation.tick(deadline_ms)
        simulation.factor = base
        fresh = chunk is not None and chunk.kind == "fresh"
        said.append(chunk.details["deadline"]["operating_point"] if fresh else simulation.outcomes[-1])
        simulation.clock.advance(max(began_s + period_ms / 1e3 - simulation.clock.now_s(), 0.0))
    return said


@settings(max_examples=40, deadline=None)
@given(st.floats(1.5, 4.0), st.integers(0, 1000))
def test_load_comes_and_goes(load: float, seed: int) -> None:
    """110 ms of 150 are taken at best. Under load a few ticks are missed, then a cheaper point fits; and back."""
    noise, simulation = random.Random(seed), Simulation(DeadlineOptions(), warm=True)
    assert drive(simulation, 20, 150, 200, noise) == ["shipped"] * 20
    simulation.factor = load
    under_load = drive(simulation, 60, 150, 200, noise)
    # Two slow ticks show it, and each costs the periods that it runs for; after that only trials miss
    misses = [index for index, name in enumerate(under_load) if name in ("held", "unanswered")]
    known_after = 2 * math.ceil(load * 110 / 200)
    later, trials = [index for index in misses if index > known_after], simulation.acting.counters.trials
    assert misses[:1] == [0] and len(later) <= 2 * trials <= 2 * 3
    assert "shipped" not in under_load
    simulation.factor = 1.0
    recovered = drive(simulation, 60, 150, 200, noise)
    assert recovered[-30:] == ["shipped"] * 30
    simulation.check_counters()


def test_one_stall_costs_one_or_two_ticks_and_no_quality() -> None:
    noise, simulation = random.Random(1), Simulation(DeadlineOptions(), warm=True)
    drive(simulation, 30, 150, 200, noise)
    simulation.delay_ms = 100.0
    drive(simulation, 1, 150, 200, noise)
    simulation.delay_ms = 0.0
    assert drive(simulation, 20, 150, 200, noise)[2:] == ["shipped"] * 18
    assert simulation.acting.counters.missed <= 2


def test_a_load_that_only_delays_is_found_out() -> None:
    """60 ms more a tick. By the factor seen at the cheapest point little else fits 200 ms; trials show that all do."""
    noise = random.Random(2)
    results = {}
    for trials in (True, False):
        simulation = Simulation(DeadlineOptions(trials=trials), warm=True)
        # A tight time drives it down to the cheapest point, under the delay
        simulation.delay_ms = 60.0
        drive(simulation, 40, 105, 250, noise)
        results[trials] = drive(simulation, 200, 200, 250, noise)
        simulation.check_counters()
    assert results[True][-1] == "shipped" and results[True].count("held") == 0
    assert results[False].count("shipped") < results[True].count("shipped")


def test_the_same_run_twice_is_the_same() -> None:
    runs = []
    for _ in range(2):
        noise, simulation = random.Random(5), Simulation(DeadlineOptions(), warm=True)
        drive(simulation, 20, 150, 200, noise)
        simulation.factor = 2.2
        runs.append((drive(simulation, 50, 150, 200, noise), simulation.acting.counters.to_dict()))
    assert runs[0] == runs[1]
