"""Whatever a source, a loop and a clock do: no row late, none twice, order kept, late chunks dropped, all counted."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.client import ChunkStream, SimulatedClock, SimulatedWorker, StreamOptions, TimedAction
from motedge.client.stream_errors import ChunkGapError, ChunkSourceError

# Rounding of times around 1,000 s, and the hundredth of a period by which a call may be early
_ROUNDING_S = 1e-9
_EARLY_PERIODS = 0.01


@dataclass
class _World:
    """A source with random latencies and failures, a loop with jitter, stalls and a clock that jumps."""

    draw: random.Random
    options: StreamOptions
    rows: int
    trouble: float
    # Whether the clock goes back too
    jumps: bool = True
    clock: SimulatedClock = field(default_factory=lambda: SimulatedClock(1000.0))
    observed_s: list[float] = field(default_factory=list)
    arrives_s: list[float] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    errors_seen: int = 0
    # Moments of all calls
    calls_s: list[float] = field(default_factory=list)
    gaps_raised: int = 0
    # (moment of the call, its action)
    served: list[tuple[float, TimedAction]] = field(default_factory=list)

    def source(self, observation: float, committed: Any) -> Any:
        number = len(self.observed_s)
        self.observed_s.append(observation)
        if self.draw.random() < self.trouble / 2:
            self.failed.add(number)
            if self.draw.random() < 0.5:
                raise RuntimeError("no answer")
            return np.full((self.rows, 2), math.nan)
        rows = np.empty((self.rows, 2))
        rows[:, 0], rows[:, 1] = number, np.arange(self.rows)
        return rows

    def latency_s(self, number: int) -> float:
        period = self.options.period_s
        latency = self.draw.uniform(0, 2 * self.options.lead_rows) * period
        if self.draw.random() < self.trouble:
            latency += self.draw.uniform(0, 2 * self.rows) * period
        self.arrives_s.append(self.clock.now_s() + latency)
        return latency

    def now_s(self) -> float:
        """The latest moment that the stream was told: where the clock goes back, time stands for it."""
        return max([self.clock.now_s(), *self.calls_s[-1:]])

    def run(self, calls: int) -> ChunkStream:
        worker = SimulatedWorker(self.clock, self.latency_s)
        stream = ChunkStream(self.source, self.now_s, self.options, clock=self.clock, worker=worker)
        for _ in range(calls):
            self._wait(stream)
            self._call(stream)
        return stream

    def _wait(self, stream: ChunkStream) -> None:
        period = self.options.period_s
        self.clock.sleep(stream.next_due_s() - self.clock.now_s())
        if self.draw.random() < self.trouble:
            kind = self.draw.choice(["late", "stall", *(["back", "early"] if self.jumps else [])])
            if kind == "late":
                self.clock.sleep(self.draw.uniform(0, 1.5) * period)
            elif kind == "stall":
                self.clock.sleep(self.draw.uniform(0, 3 * self.rows) * period)
            else:
                self.clock.advance_to(self.clock.now_s() - self.draw.uniform(0, 5 if kind == "back" else 1) * period)

    def _call(self, stream: ChunkStream) -> None:
        now_s = self.now_s()
        self.calls_s.append(now_s)
        try:
            action = stream.next_action()
        except ChunkGapError:
            self.gaps_raised += 1
            return
        except ChunkSourceError:
            self.errors_seen += 1
            return
        self.errors_seen += action.error is not None
        self.served.append((now_s, action))


_options = st.builds(
    lambda rate, horizon, lead, seam, empty, error: StreamOptions(
        rate_hz=rate,
        horizon=horizon,
        prefetch_at=horizon - 1 - lead % horizon,
        seam=seam,
        blend_rows=0,
        on_empty=empty,
        on_error=error,
    ),
    st.sampled_from([3.0, 10.0, 15.0, 50.0]),
    st.integers(1, 12),
    st.integers(0, 11),
    st.sampled_from(["cut", "blend", "condition"]),
    st.sampled_from(["hold", "zero", "raise"]),
    st.sampled_from(["raise", "report"]),
)
_troubles = st.sampled_from([0.0, 0.05, 0.3])


@settings(max_examples=200, deadline=None)
@given(_options, st.integers(1, 24), _troubles, st.integers(0, 2**32 - 1))
def test_no_row_is_late_or_given_out_twice(options: StreamOptions, rows: int, trouble: float, seed: int) -> None:
    world = _World(random.Random(seed), options, rows, trouble)
    stream = world.run(150)
    counters = stream.report().counters
    fresh = [(now_s, action) for now_s, action in world.served if action.kind == "fresh"]
    period = options.period_s
    seen = [(action.chunk, action.row_index) for _, action in fresh]
    assert len(set(seen)) == len(seen)
    # Chunks in the order of their observations, rows in their order, moments one after another
    assert seen == sorted(seen)
    due = [action.due_s for _, action in world.served if action.kind != "repeated"]
    assert all(later > earlier for earlier, later in zip(due, due[1:]))
    for now_s, action in fresh:
        # The row is the one that it says it is
        assert action.row.tolist() == [action.chunk, action.row_index]
        # In its own period
        assert action.due_s - _EARLY_PERIODS * period - _ROUNDING_S <= now_s < action.due_s + period
        # And that period is the one that its observation gives it: up to one period of the observation's own
        ideal_s = world.observed_s[action.chunk] + (action.row_index + 1) * period
        assert -period < action.due_s - ideal_s <= _EARLY_PERIODS * period + _ROUNDING_S
        # It was there
        assert world.arrives_s[action.chunk] <= now_s
        assert action.chunk not in world.failed
    assert counters.fresh == len(fresh)


@settings(max_examples=200, deadline=None)
@given(_options, st.integers(1, 24), _troubles, st.integers(0, 2**32 - 1))
def test_every_period_call_and_chunk_is_counted(options: StreamOptions, rows: int, trouble: float, seed: int) -> None:
    world = _World(random.Random(seed), options, rows, trouble)
    stream = world.run(150)
    counters = stream.report().counters
    # Periods: from the first to the one that was served last
    periods = round((stream.next_due_s() - world.calls_s[0]) * options.rate_hz)
    assert counters.fresh + counters.gap_ticks + counters.missed_ticks == periods
    kinds = [action.kind for _, action in world.served]
    if options.on_empty != "raise":
        nothing_yet = world.gaps_raised
        assert counters.gap_ticks + counters.repeated_calls == (len(kinds) - kinds.count("fresh") + nothing_yet)
    raised = world.errors_seen if options.on_error == "raise" else 0
    assert counters.fresh + counters.gap_ticks + counters.repeated_calls + raised == len(world.calls_s)
    # Chunks
    settled = counters.chunks_used + counters.chunks_late + counters.chunks_bad + counters.source_errors
    assert counters.requested == len(world.observed_s)
    assert counters.requested - settled in (0, 1)
    assert counters.chunks_bad + counters.source_errors in (len(world.failed), len(world.failed) - 1)
    used = {action.chunk for _, action in world.served if action.kind == "fresh"}
    assert counters.chunks_used == len(used)


@settings(max_examples=100, deadline=None)
@given(_options, st.integers(1, 24), st.integers(0, 2**32 - 1))
def test_a_chunk_is_dropped_if_and_only_if_its_time_is_over(options: StreamOptions, rows: int, seed: int) -> None:
    world = _World(random.Random(seed), options, rows, 0.2, jumps=False)
    stream = world.run(150)
    used = {action.chunk for _, action in world.served if action.kind == "fresh"}
    last_call_s = max(world.calls_s)
    unused = [
        number
        for number in range(len(world.observed_s))
        if number not in used | world.failed and world.arrives_s[number] <= last_call_s
    ]
    late = stream.report().counters.chunks_late
    # The last one may still wait for its time
    assert late <= len(unused) <= late + 1
    for number in unused[:-1]:
        # Its last row's period ends so long after its observation; that is on the grid, hence up to a period earlier
        over_s = world.observed_s[number] + (rows + 1) * options.period_s
        for now_s, action in world.served:
            if world.arrives_s[number] <= now_s < over_s - options.period_s:
                # It was there and of use: only rows of an older chunk, its horizon not over, can have been before it
                assert action.kind == "fresh"
                assert action.chunk < number


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 10), st.integers(1, 10))
def test_without_trouble_there_is_no_gap_and_every_chunk_is_used(seed: int, horizon: int, lead: int) -> None:
    lead = min(lead, horizon)
    options = StreamOptions(rate_hz=15.0, horizon=horizon, prefetch_at=horizon - lead)
    draw = random.Random(seed)
    clock = SimulatedClock(7.0)
    made: list[int] = []

    def source(observation: float, committed: Any) -> Any:
        made.append(len(made))
        return np.zeros((lead - 1 + horizon, 3))

    worker = SimulatedWorker(clock, lambda _: draw.uniform(0, 0.99) * lead * options.period_s)
    stream = ChunkStream(source, clock.now_s, options, clock=clock, worker=worker)
    stream.wait_first(10.0)
    for _ in range(100):
        clock.sleep(stream.next_due_s() - clock.now_s())
        assert stream.next_action().kind == "fresh"
    counters = stream.report().counters
    assert (counters.gap_ticks, counters.rows_overrun, counters.chunks_late, counters.missed_ticks) == (0, 0, 0, 0)
    assert stream.report().jitter_ms["max"] < 1e-6
