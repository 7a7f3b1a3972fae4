"""Actions one by one out of chunks that are computed while the last one is executed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.client.clock import Clock, MonotonicClock
from motedge.client.incoming import Chunk, blended_fields, check_rows
from motedge.client.seam import continues, crossfade
from motedge.client.stream_errors import ChunkGapError, ChunkSourceError
from motedge.client.stream_options import StreamOptions
from motedge.client.stream_report import Measurements, StreamReport
from motedge.client.timed_action import TimedAction
from motedge.client.worker import ThreadWorker, Ticket, Worker
from motedge.errors import MotedgeError, UsageError

# A call this share of a period early belongs to the coming period: clocks and sleeps round
_EARLY = 0.01
# How often `wait_first` looks, in periods
_LOOK_PERIODS = 0.1
Rows = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Request:
    """A chunk that is on its way."""

    ticket: Ticket
    number: int
    tick: int
    time_s: float
    committed: Rows


class ChunkStream:
    """Gives out one action a period, from chunks that a source computes in a worker.

    Time is a grid of periods that begins with the first action. A chunk whose observation was made in period k has
    its row i due in period k + i + 1, and a row is given out in its own period or never: not late, and not twice. The
    next chunk is asked for `lead_rows` periods before the present one's horizon ends, with an observation of that
    moment, and takes over at the horizon. One that comes later takes over when it comes, with the row that is due
    then; until then the old chunk's further rows are executed. One that comes when all its rows are over is dropped.

        with ChunkStream(source, observe, StreamOptions(rate_hz=15, horizon=8)) as stream:
            stream.wait_first(timeout_s=10)
            while running:
                action = stream.next_action()
                robot.send(envelope.apply(action.row, dt_s).action)
                clock.sleep(stream.next_due_s() - clock.now_s())

    One thread calls `next_action`, and it never waits for the source. Every period is counted: as fresh, gap or missed.
    """

    def __init__(
        self,
        source: Callable[[Any, Rows], Any],
        observe: Callable[[], Any],
        options: StreamOptions,
        *,
        clock: Optional[Clock] = None,
        worker: Optional[Worker] = None,
    ) -> None:
        """Nothing is asked for before the first `next_action` or `wait_first`.

        Args:
            source: source(observation, committed) -> chunk: float [rows, fields], or an object with `.actions` and
                `.rate_hz` (`.field_names` too, if it likes). committed, float64 [n, fields], are the actions that
                will be executed between the observation and the takeover; [0, 0] before the first chunk. Called in
                the worker, one call at a time.
            observe: Makes the observation; called in the worker, right before source.
            options: Rate, horizon, seam.
            clock: Time; the machine's by default.
            worker: Where source runs; a thread of its own by default.
        """
        self.options = options
        self._source, self._observe = source, observe
        self._clock: Clock = clock or MonotonicClock()
        self._worker: Worker = worker or ThreadWorker(self._clock)
        self._measured = Measurements()
        self._origin_s: Optional[float] = None
        # The last moment that was seen and the last period that was served
        self._now_s, self._tick = -math.inf, -1
        self._request: Optional[_Request] = None
        self._next: Optional[Chunk] = None
        self._active: Optional[Chunk] = None
        # The period in which the next chunk is to take over
        self._takeover_tick = 0
        self._last: Optional[TimedAction] = None
        self._fields: Optional[int] = None
        self._error: Optional[str] = None
        self._closed = False

    def __enter__(self) -> ChunkStream:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self, timeout_s: float = 1.0) -> bool:
        """Asks for nothing more; whether the source ended within that time. One that hangs is left to its thread."""
        if self._closed:
            return True
        self._closed = True
        return self._worker.close(timeout_s)

    def report(self) -> StreamReport:
        """Counts, timing and seams so far."""
        report = self._measured.report(self.options.period_s)
        if self._request is not None and not self._request.ticket.done():
            report.waiting_s = self._clock.now_s() - self._request.time_s
        return report

    def next_due_s(self) -> float:
        """When the period after the last served one begins, on the clock; now, before the first."""
        if self._origin_s is None:
            return self._clock.now_s()
        return self._due_s(self._tick + 1)

    def wait_first(self, timeout_s: float, *, standing: bool = True) -> None:
        """Asks for the first chunk and waits for it.

        Args:
            timeout_s: How long.
            standing: The robot stands still meanwhile, so that the observation is as good when the chunk arrives: its
                row 0 is due at once. Otherwise the rows that were due during the wait are skipped.

        Raises:
            ChunkGapError: it has not come in that time.
            ChunkSourceError: the source failed. As after a ChunkGapError, the wait can be repeated.
        """
        self._check_open()
        if self._origin_s is not None:
            raise UsageError("wait_first comes before the first next_action")
        began_s = self._clock.now_s()
        # One that an earlier wait gave up on may still come
        request = self._request or self._ask(0, began_s)
        while not request.ticket.done():
            if self._clock.now_s() - began_s >= timeout_s:
                raise ChunkGapError(
                    f"no chunk came in {timeout_s} s", fix="look whether the source hangs, or wait longer"
                )
            self._clock.sleep(self.options.period_s * _LOOK_PERIODS)
        if standing:
            # Observed one period before the first action
            self._request = _Request(request.ticket, request.number, -1, request.time_s, request.committed)
        self._receive()
        # Before the grid begins: after a failure the wait can be repeated, and no period has been missed
        self._raise_error()
        if standing:
            self._origin_s = self._clock.now_s()
        else:
            # Period 0 is the observation's, and has no action
            self._origin_s, self._tick = request.time_s, 0

    def next_action(self, now_s: Optional[float] = None) -> TimedAction:
        """The action of the present period; returns at once.

        Args:
            now_s: The moment, on the stream's clock; read from it by default.

        Raises:
            ChunkGapError: there is no action, and none to hold or `on_empty` is "raise".
            ChunkSourceError: the source failed, and `on_error` is "raise". The period is not served by that: the next
                call gives its action.
        """
        self._check_open()
        tick, now_s = self._place(self._clock.now_s() if now_s is None else now_s)
        self._receive()
        if self.options.on_error == "raise":
            self._raise_error()
        if tick <= self._tick:
            return self._repeat(tick)
        self._take_over(tick)
        self._prefetch(tick, now_s)
        self._measured.counters.missed_ticks += tick - self._tick - 1
        self._tick = tick
        self._measured.jitter.add(now_s - self._due_s(tick))
        return self._serve(tick)

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the chunk stream is closed", fix="make a new one")

    def _due_s(self, tick: int) -> float:
        return (self._origin_s or 0.0) + tick * self.options.period_s

    def _place(self, now_s: float) -> tuple[int, float]:
        """The period of a moment, and the moment, never before the last one."""
        if not math.isfinite(now_s):
            raise UsageError("now_s of next_action", expected="seconds", got=now_s)
        if now_s < self._now_s:
            self._measured.counters.clock_backwards += 1
            now_s = self._now_s
        self._now_s = now_s
        if self._origin_s is None:
            self._origin_s = now_s
            if self._request is not None:
                # Asked for by a wait that gave up, before the grid began: put on its nearest point
                asked = self._request
                tick = round((asked.time_s - now_s) * self.options.rate_hz)
                self._request = _Request(asked.ticket, asked.number, tick, asked.time_s, asked.committed)
        return math.floor((now_s - self._origin_s) * self.options.rate_hz + _EARLY), now_s

    def _ask(self, tick: int, now_s: float) -> _Request:
        committed = np.zeros((0, 0))
        if self._active is not None:
            committed = self._active.between(tick + 1, self._takeover_tick)
        given = committed.copy()
        counters = self._measured.counters
        ticket = self._worker.start(lambda: self._source(self._observe(), given))
        self._request = _Request(ticket, counters.requested, tick, now_s, committed)
        counters.requested += 1
        return self._request

    def _prefetch(self, tick: int, now_s: float) -> None:
        """Asks for the next chunk if it is time and none is there or on its way."""
        if self._request is not None or self._next is not None:
            return
        if self._active is None or tick >= self._takeover_tick - self.options.lead_rows:
            self._ask(tick, now_s)

    def _receive(self) -> None:
        """Takes what the worker has ready: a chunk, or an error."""
        request = self._request
        if request is None or not request.ticket.done():
            return
        self._request = None
        counters = self._measured.counters
        try:
            answer = request.ticket.result()
        except Exception as error:  # noqa: BLE001  whatever the source raises is reported as its failure
            counters.source_errors += 1
            self._error = f"{type(error).__name__}: {error}"
            return
        self._measured.latency.add(request.ticket.finished_s - request.time_s)
        try:
            rows = check_rows(answer, self.options, self._fields)
            blended = blended_fields(answer, self.options, rows.shape[1])
        except MotedgeError as error:
            counters.chunks_bad += 1
            self._error = str(error)
            return
        self._fields = rows.shape[1]
        self._next = Chunk(request.number, request.tick, request.time_s, rows, request.committed, blended)

    def _raise_error(self) -> None:
        """Raises the source's last failure, once."""
        if self._error is None:
            return
        reason, self._error = self._error, None
        raise ChunkSourceError("the source of chunks failed", why=reason)

    def _take_over(self, tick: int) -> None:
        """Makes the chunk that waits the active one, if its time has come; drops it if its time is over."""
        chunk, old = self._next, self._active
        if chunk is None or (old is not None and tick < self._takeover_tick):
            return
        self._next = None
        counters = self._measured.counters
        if not chunk.has(tick):
            counters.chunks_late += 1
            return
        counters.chunks_used += 1
        counters.rows_skipped += chunk.index(tick)
        self._active = self._joined(chunk, old, tick)
        last_tick = chunk.observation_tick + len(chunk.rows)
        self._takeover_tick = min(tick + self.options.horizon, last_tick + 1)

    def _joined(self, chunk: Chunk, old: Optional[Chunk], tick: int) -> Chunk:
        """The chunk with its seam to the old one made."""
        options, first = self.options, chunk.index(tick)
        last = None if self._last is None else self._last.row
        there = old.between(tick, tick + max(options.blend_rows, 1)) if old is not None else np.zeros((0, 0))
        disagreement = chunk.rows[first] - there[0] if len(there) else None
        follows = options.seam == "condition" and continues(chunk.committed, chunk.rows, options.condition_tolerance)
        # A chunk that begins with the committed rows may still come too late to go on from them
        conditioned = follows and len(chunk.committed) > 0 and first <= len(chunk.committed)
        if options.seam == "condition" and not follows:
            self._measured.counters.seam_mismatches += 1
        rows = chunk.rows
        if options.seam != "cut" and options.blend_rows and not conditioned and last is not None:
            if not len(there):
                # After a gap: from where the robot was held
                there = np.repeat(last[None], options.blend_rows, axis=0)
            there = there[: min(options.blend_rows, len(rows) - first)]
            rows = np.concatenate([rows[:first], crossfade(there, rows[first:], chunk.blended)])
        self._measured.seam(disagreement, None if last is None else rows[first] - last)
        return Chunk(chunk.number, chunk.observation_tick, chunk.observation_s, rows, chunk.committed, chunk.blended)

    def _serve(self, tick: int) -> TimedAction:
        """The action of a period that was not served before."""
        chunk = self._active
        if chunk is None or not chunk.has(tick):
            self._measured.gap(True)
            self._last = self._empty(tick)
            return self._copied(self._last)
        self._measured.gap(False)
        self._measured.counters.rows_overrun += tick >= self._takeover_tick
        due_s = self._due_s(tick)
        self._last = TimedAction(
            chunk.row(tick).copy(), due_s, chunk.number, chunk.index(tick), "fresh", due_s - chunk.observation_s
        )
        return self._copied(self._last)

    def _empty(self, tick: int) -> TimedAction:
        """What to do in a period for which there is no row."""
        if self._last is None or self.options.on_empty == "raise":
            raise ChunkGapError(
                "there is no action for this period",
                why="no chunk has come yet" if self._last is None else "the next chunk is not there",
                fix="call wait_first before the loop" if self._last is None else "ask for chunks earlier",
            )
        kind = {"hold": "held", "zero": "zero"}[self.options.on_empty]
        row = self._last.row if kind == "held" else np.zeros_like(self._last.row)
        return TimedAction(row, self._due_s(tick), self._last.chunk, None, kind)

    def _repeat(self, tick: int) -> TimedAction:
        """A further call in a period that was served."""
        self._measured.counters.repeated_calls += 1
        if self._last is None:
            raise ChunkGapError("there is no action for this period", why="no chunk has come yet")
        return self._copied(TimedAction(self._last.row, self._due_s(self._tick), self._last.chunk, None, "repeated"))

    def _copied(self, action: TimedAction) -> TimedAction:
        """The action with a row that is the caller's own, and with the failure that is to be reported with it."""
        error, self._error = self._error, None
        return TimedAction(
            action.row.copy(),
            action.due_s,
            action.chunk,
            action.row_index,
            action.kind,
            action.observation_age_s,
            error,
        )
