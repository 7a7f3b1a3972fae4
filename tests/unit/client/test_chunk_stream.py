"""ChunkStream on a simulated clock: when chunks are asked for, take over and are joined; and once on real threads."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from motedge.client import ChunkStream, SimulatedClock, SimulatedWorker, StreamOptions, ThreadWorker
from motedge.client.clock import MonotonicClock
from motedge.client.stream_errors import ChunkGapError, ChunkSourceError
from motedge.errors import UsageError

_RATE_HZ = 10.0
_PERIOD_S = 0.1


@dataclass
class _Chunk:
    actions: Any
    rate_hz: float = _RATE_HZ
    kind: str = "fresh"
    field_names: tuple[str, ...] = ("x", "gripper_position")


class _Bench:
    """A stream whose chunks say where they come from: field 0 is 100 * chunk + row, field 1 the chunk."""

    def __init__(self, latency_s: Callable[[int], float], rows: int = 16, **options: Any) -> None:
        self.clock = SimulatedClock(50.0)
        self.asked_s: list[float] = []
        self.committed: list[Any] = []
        self.rows = rows
        defaults = {"rate_hz": _RATE_HZ, "horizon": 8, "prefetch_at": 4, "seam": "cut"}
        self.stream = ChunkStream(
            self.source,
            self.clock.now_s,
            StreamOptions(**{**defaults, **options}),
            clock=self.clock,
            worker=SimulatedWorker(self.clock, latency_s),
        )

    def source(self, observation: float, committed: Any) -> Any:
        number = len(self.asked_s)
        self.asked_s.append(observation)
        self.committed.append(committed)
        return self.answer(number)

    def answer(self, number: int) -> Any:
        rows = np.zeros((self.rows, 2))
        rows[:, 0] = 100 * number + np.arange(self.rows)
        rows[:, 1] = number
        return rows

    def run(self, count: int) -> list[Any]:
        out = []
        for _ in range(count):
            self.clock.advance_to(self.stream.next_due_s())
            out.append(self.stream.next_action())
        return out


def _labels(actions: list[Any]) -> list[int]:
    return [int(action.row[0]) for action in actions]


def test_chunks_take_over_at_the_horizon() -> None:
    bench = _Bench(lambda _: 0.15)
    bench.stream.wait_first(1.0)
    actions = bench.run(20)
    # The first begins at its row 0. Each next one is asked for 4 periods before, so that its rows 0 to 2 are over
    assert _labels(actions) == [*range(8), *range(103, 111), *range(203, 207)]
    assert {action.kind for action in actions} == {"fresh"}
    start_s = actions[0].due_s
    assert bench.asked_s[1] == pytest.approx(start_s + 4 * _PERIOD_S)
    assert actions[8].observation_age_s == pytest.approx(4 * _PERIOD_S)
    assert [action.due_s - start_s for action in actions] == pytest.approx([i * _PERIOD_S for i in range(20)])


def test_the_source_is_told_what_will_be_executed_meanwhile() -> None:
    bench = _Bench(lambda _: 0.15)
    bench.stream.wait_first(1.0)
    bench.run(6)
    assert bench.committed[0].shape == (0, 0)
    assert bench.committed[1][:, 0].tolist() == [5, 6, 7]


def test_a_chunk_that_comes_after_the_horizon_takes_over_when_it_comes() -> None:
    bench = _Bench(lambda number: 0.61 if number else 0.1)
    bench.stream.wait_first(1.0)
    actions = bench.run(13)
    # Asked for in period 4, there in period 11: row 11 - 4 - 1
    assert _labels(actions) == [*range(11), 106, 107]
    counters = bench.stream.report().counters
    assert (counters.rows_overrun, counters.gap_ticks, counters.chunks_late) == (3, 0, 0)


def test_a_chunk_whose_rows_are_over_is_dropped_and_counted() -> None:
    bench = _Bench(lambda number: 1.75 if number == 1 else 0.09)
    bench.stream.wait_first(1.0)
    actions = bench.run(25)
    kinds = "".join(action.kind[0] for action in actions)
    # 16 rows; chunk 1, asked for in period 4, has rows until 20 and is there in 22. The next is there in 23
    assert kinds == "f" * 16 + "h" * 7 + "f" * 2
    assert _labels(actions)[15:25] == [15] * 8 + [200, 201]
    counters = bench.stream.report().counters
    assert (counters.chunks_late, counters.gaps, counters.gap_ticks) == (1, 1, 7)
    assert bench.stream.report().longest_gap_s == pytest.approx(0.7)
    assert actions[17].row_index is None


def test_a_loop_that_stalls_skips_rows() -> None:
    bench = _Bench(lambda _: 0.05)
    bench.stream.wait_first(1.0)
    bench.run(2)
    bench.clock.sleep(0.35)
    assert bench.stream.next_action().row[0] == 4
    assert bench.stream.report().counters.missed_ticks == 2
    assert bench.stream.report().jitter_ms["max"] == pytest.approx(50.0)


def test_a_second_call_in_a_period_repeats_it() -> None:
    bench = _Bench(lambda _: 0.05)
    bench.stream.wait_first(1.0)
    first, second = bench.run(1)[0], bench.stream.next_action()
    assert (second.kind, second.row[0], second.due_s) == ("repeated", first.row[0], first.due_s)
    assert bench.stream.report().counters.repeated_calls == 1
    assert _labels(bench.run(1)) == [1]


def test_a_clock_that_goes_backwards_gives_no_row_twice() -> None:
    bench = _Bench(lambda _: 0.05)
    bench.stream.wait_first(1.0)
    bench.run(3)
    bench.clock.advance_to(bench.clock.now_s() - 0.25)
    assert bench.stream.next_action().kind == "repeated"
    assert bench.stream.report().counters.clock_backwards == 1
    assert _labels(bench.run(1)) == [3]


def test_without_wait_first_the_first_periods_have_nothing() -> None:
    bench = _Bench(lambda _: 0.25)
    for _ in range(3):
        with pytest.raises(ChunkGapError, match="wait_first"):
            bench.stream.next_action()
        bench.clock.sleep(_PERIOD_S)
    assert _labels([bench.stream.next_action()]) == [2]
    counters = bench.stream.report().counters
    assert (counters.gap_ticks, counters.rows_skipped, counters.fresh) == (3, 2, 1)


def test_a_robot_that_moves_while_it_waits_skips_what_was_due() -> None:
    bench = _Bench(lambda _: 0.25)
    bench.stream.wait_first(1.0, standing=False)
    assert _labels([bench.stream.next_action()]) == [1]


@pytest.mark.parametrize(("on_empty", "value"), [("hold", 15.0), ("zero", 0.0)])
def test_what_follows_the_last_row(on_empty: str, value: float) -> None:
    bench = _Bench(lambda number: float("inf") if number else 0.1, on_empty=on_empty)
    bench.stream.wait_first(1.0)
    action = bench.run(18)[-1]
    assert action.row[0] == value
    assert action.kind == {"hold": "held", "zero": "zero"}[on_empty]
    # A source that hangs is seen, and does not hang the loop
    assert bench.stream.report().waiting_s == pytest.approx(1.3)
    assert bench.stream.report().counters.requested == 2


def test_a_gap_can_be_an_error() -> None:
    bench = _Bench(lambda number: float("inf") if number else 0.1, on_empty="raise")
    bench.stream.wait_first(1.0)
    bench.run(16)
    with pytest.raises(ChunkGapError, match="next chunk"):
        bench.run(1)
    assert bench.stream.report().counters.gap_ticks == 1


def _fails_once(bench: _Bench) -> None:
    def answer(number: int) -> Any:
        if number == 1:
            raise ValueError("lost the camera")
        return _Bench.answer(bench, number)

    bench.answer = answer  # type: ignore[method-assign]


def test_an_error_of_the_source_comes_through_once() -> None:
    bench = _Bench(lambda _: 0.05)
    _fails_once(bench)
    bench.stream.wait_first(1.0)
    bench.run(5)
    with pytest.raises(ChunkSourceError, match="ValueError: lost the camera"):
        bench.run(1)
    # The period was not served by that, and the next request was made
    assert _labels([bench.stream.next_action()]) == [5]
    assert _labels(bench.run(4)) == [6, 7, 202, 203]
    counters = bench.stream.report().counters
    assert (counters.source_errors, counters.gap_ticks, counters.missed_ticks) == (1, 0, 0)


def test_an_error_of_the_source_can_come_with_the_action() -> None:
    bench = _Bench(lambda _: 0.05, on_error="report")
    _fails_once(bench)
    bench.stream.wait_first(1.0)
    errors = [action.error for action in bench.run(12)]
    assert [bool(error) for error in errors] == [index == 5 for index in range(12)]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.full((4, 2), np.nan), "not finite"),
        (np.zeros((0, 2)), "another shape"),
        (np.zeros(3), "another shape"),
        (np.zeros((4, 3)), "another shape"),
        ("chunk", "no chunk"),
        (None, "no chunk|another shape|not finite"),
        (_Chunk(np.zeros((4, 2)), rate_hz=30.0), "another rate"),
        (_Chunk(np.zeros((4, 2)), kind="held"), "a held chunk"),
    ],
)
def test_what_is_no_chunk_is_never_executed(answer: Any, message: str) -> None:
    bench = _Bench(lambda _: 0.05)
    bench.answer = lambda number: answer if number else _Bench.answer(bench, 0)  # type: ignore[method-assign]
    bench.stream.wait_first(1.0)
    bench.run(5)
    with pytest.raises(ChunkSourceError, match=message):
        bench.run(1)
    assert bench.stream.report().counters.chunks_bad == 1
    assert _labels([bench.stream.next_action()]) == [5]


def test_objects_with_actions_are_taken_and_their_gripper_is_switched() -> None:
    bench = _Bench(lambda _: 0.05, seam="blend", blend_rows=3)
    bench.answer = lambda number: _Chunk(np.full((16, 2), float(number)))  # type: ignore[method-assign]
    bench.stream.wait_first(1.0)
    rows = np.array([action.row for action in bench.run(13)])
    assert rows[6:13, 0].tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert rows[6:13, 1].tolist() == [0, 0, 1, 1, 1, 1, 1]
    report = bench.stream.report()
    assert report.seam_disagreement == [1.0, 1.0]
    assert report.seam_step == [0.25, 1.0]


def test_after_a_gap_the_seam_begins_where_the_robot_was_held() -> None:
    bench = _Bench(lambda number: 1.75 if number == 1 else 0.05, seam="blend", blend_rows=1, rows=8)
    bench.answer = lambda number: np.full((8, 2), float(number))  # type: ignore[method-assign]
    bench.stream.wait_first(1.0)
    rows = [action.row[0] for action in bench.run(25)]
    assert rows[22:25] == [0.0, 1.0, 2.0]


def test_a_conditioned_chunk_is_not_blended_and_a_mismatch_is_counted() -> None:
    bench = _Bench(lambda _: 0.15, seam="condition", blend_rows=3)
    bench.answer = lambda number: _conditioned(bench, number)  # type: ignore[method-assign]
    bench.stream.wait_first(1.0)
    rows = [action.row[0] for action in bench.run(20)]
    assert rows[:8] == list(range(8))
    # Chunk 1 begins with the committed 5, 6, 7 and goes on as it likes; chunk 2 does not begin with them
    assert rows[8:16] == [103, 104, 105, 106, 107, 108, 109, 110]
    assert rows[16] == pytest.approx(0.75 * 111 + 0.25 * 203)
    counters = bench.stream.report().counters
    assert counters.seam_mismatches == 1


def _conditioned(bench: _Bench, number: int) -> Any:
    rows = _Bench.answer(bench, number)
    committed = bench.committed[number]
    if number == 1:
        rows[: len(committed)] = committed
    return rows


def test_chunks_shorter_than_the_horizon_end_it() -> None:
    bench = _Bench(lambda _: 0.05, rows=6, horizon=8, prefetch_at=6)
    bench.stream.wait_first(1.0)
    assert _labels(bench.run(12)) == [0, 1, 2, 3, 4, 5, 101, 102, 103, 104, 105, 201]


def test_prefetch_as_a_time() -> None:
    assert StreamOptions(rate_hz=15, horizon=8, prefetch_lead_s=0.2).lead_rows == 3
    assert StreamOptions(rate_hz=15, horizon=8, prefetch_lead_s=0.21).lead_rows == 4
    assert StreamOptions(rate_hz=15, horizon=8).lead_rows == 4
    assert StreamOptions(rate_hz=15, horizon=1).lead_rows == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_hz": 0.0}, "rate_hz"),
        ({"rate_hz": float("nan")}, "rate_hz"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": 2.5}, "horizon"),
        ({"blend_rows": -1}, "blend_rows"),
        ({"seam": "blnd"}, "did you mean 'blend'"),
        ({"on_empty": "stop"}, "on_empty"),
        ({"on_error": "log"}, "on_error"),
        ({"prefetch_at": 8}, "outside the horizon"),
        ({"prefetch_at": 2, "prefetch_lead_s": 0.1}, "give one"),
        ({"prefetch_lead_s": 0.9}, "outside the horizon"),
        ({"prefetch_lead_s": float("inf")}, "prefetch_lead_s"),
        ({"condition_tolerance": -1.0}, "condition_tolerance"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StreamOptions(**{"rate_hz": 10.0, "horizon": 8, **options})


def test_switched_fields_must_exist() -> None:
    bench = _Bench(lambda _: 0.05, switched_fields=("grip",))
    with pytest.raises(ChunkSourceError, match="switched_fields"):
        bench.stream.wait_first(1.0)
    assert bench.stream.report().counters.chunks_bad == 1


def test_waiting_in_vain_can_be_repeated() -> None:
    bench = _Bench(lambda number: 2.0)
    with pytest.raises(ChunkGapError, match=r"1\.0 s"):
        bench.stream.wait_first(1.0)
    bench.stream.wait_first(1.5)
    assert _labels(bench.run(2)) == [0, 1]
    assert len(bench.asked_s) == 1


@pytest.mark.parametrize("standing", [True, False])
def test_a_wait_that_failed_can_be_repeated(standing: bool) -> None:
    bench = _Bench(lambda _: 0.05)

    def answer(number: int) -> Any:
        if number == 0:
            raise ValueError("lost the camera")
        return np.zeros((4, 0)) if number == 1 else _Bench.answer(bench, number)

    bench.answer = answer  # type: ignore[method-assign]
    for message in ("lost the camera", "another shape"):
        with pytest.raises(ChunkSourceError, match=message):
            bench.stream.wait_first(1.0, standing=standing)
        assert bench.stream.next_due_s() == bench.clock.now_s()
        bench.clock.sleep(3.0)
    bench.stream.wait_first(1.0, standing=standing)
    first = bench.stream.next_action() if standing else bench.run(1)[0]
    assert _labels([first]) == [200]
    counters = bench.stream.report().counters
    assert (counters.missed_ticks, counters.gap_ticks, counters.requested) == (0, 0, 3)
    assert (counters.source_errors, counters.chunks_bad) == (1, 1)


def test_after_a_wait_that_failed_periods_begin_with_the_first_action() -> None:
    bench = _Bench(lambda _: 0.05, on_error="report")
    bench.answer = lambda number: _Bench.answer(bench, number) if number else None  # type: ignore[method-assign]
    with pytest.raises(ChunkSourceError):
        bench.stream.wait_first(1.0)
    bench.clock.sleep(3.0)
    with pytest.raises(ChunkGapError, match="wait_first"):
        bench.stream.next_action()
    assert _labels(bench.run(1)) == [100]
    counters = bench.stream.report().counters
    assert (counters.missed_ticks, counters.gap_ticks, counters.fresh) == (0, 1, 1)


def test_a_wait_that_gave_up_leaves_rows_at_their_time() -> None:
    bench = _Bench(lambda number: 0.65)
    with pytest.raises(ChunkGapError):
        bench.stream.wait_first(0.5)
    start_s = bench.clock.now_s()
    with pytest.raises(ChunkGapError):
        bench.stream.next_action()
    bench.clock.advance_to(start_s + 0.2)
    action = bench.stream.next_action()
    # Observed 0.5 s before the first period, 0.7 s before this one: row 6
    assert action.row[0] == 6
    assert action.observation_age_s == pytest.approx(0.7, abs=0.02)


def test_rows_are_the_callers_own() -> None:
    bench = _Bench(lambda _: 0.05, on_empty="hold", rows=2)
    bench.stream.wait_first(1.0)
    bench.run(1)[0].row[:] = 999
    assert bench.stream.next_action().row[0] == 0


def test_a_report_is_json() -> None:
    bench = _Bench(lambda _: 0.15)
    bench.stream.wait_first(1.0)
    bench.run(20)
    report = bench.stream.report().to_dict()
    assert json.loads(json.dumps(report)) == report
    assert report["schema"] == "motedge.chunk_stream_report/v1"
    assert report["latency_ms"]["p50"] == pytest.approx(150.0)
    assert report["counters"]["fresh"] == 20


def test_a_closed_stream_says_so() -> None:
    bench = _Bench(lambda _: 0.15)
    with bench.stream:
        bench.stream.wait_first(1.0)
    with pytest.raises(UsageError, match="closed"):
        bench.stream.next_action()
    assert bench.stream.close()


def test_real_threads_and_a_real_clock() -> None:
    """The source runs beside the loop: while it computes, actions go on; close ends the thread."""
    clock = MonotonicClock()
    before = threading.active_count()
    main = threading.get_ident()
    threads = set()

    def source(observation: Any, committed: Any) -> Any:
        threads.add(threading.get_ident())
        clock.sleep(0.02)
        return np.zeros((16, 2))

    options = StreamOptions(rate_hz=100.0, horizon=8, prefetch_at=2)
    with ChunkStream(source, lambda: None, options, clock=clock) as stream:
        stream.wait_first(10.0)
        kinds = []
        for _ in range(30):
            clock.sleep(stream.next_due_s() - clock.now_s())
            kinds.append(stream.next_action().kind)
        counters = stream.report().counters
    assert main not in threads
    assert len(threads) == 1
    assert kinds.count("fresh") == counters.fresh
    assert counters.fresh + counters.gap_ticks + counters.repeated_calls == 30
    assert counters.chunks_used >= 2
    assert threading.active_count() == before


def test_a_source_that_hangs_keeps_neither_loop_nor_close() -> None:
    clock, release = MonotonicClock(), threading.Event()

    def source(observation: Any, committed: Any) -> Any:
        release.wait(30)
        return np.zeros((4, 2))

    stream = ChunkStream(source, lambda: None, StreamOptions(rate_hz=100.0, horizon=4), clock=clock)
    began_s = clock.now_s()
    with pytest.raises(ChunkGapError):
        stream.next_action()
    assert not stream.close(timeout_s=0.05)
    assert clock.now_s() - began_s < 10
    release.set()


def test_a_worker_keeps_what_even_exiting_raises() -> None:
    worker = ThreadWorker(MonotonicClock())

    def leave() -> None:
        raise SystemExit(3)

    ticket = worker.start(leave)
    assert worker.close(10.0)
    with pytest.raises(SystemExit):
        ticket.result()
