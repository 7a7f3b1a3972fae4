"""`act` with a deadline: an operating point that fits, a watchdog, and a reply that says what became of the tick."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import threading
from collections.abc import Iterator
from typing import Any, Optional, Protocol

import numpy as np

from motedge.errors import UsageError
from motedge.runtime.deadline.clock import Clock, MonotonicClock
from motedge.runtime.deadline.counters import FAILED, MET, MISSED, DeadlineCounters
from motedge.runtime.deadline.errors import DeadlineMissedError
from motedge.runtime.deadline.ladder import Ladder
from motedge.runtime.deadline.last_chunk import LastChunk
from motedge.runtime.deadline.latency import LatencyTracker
from motedge.runtime.deadline.operating_point import OperatingPoint
from motedge.runtime.deadline.options import DeadlineOptions
from motedge.runtime.deadline.reply import mark_reply, missed_error
from motedge.runtime.deadline.scheduler import CROWDED_OUT, REFUSED, TRIAL, Choice, Scheduler
from motedge.runtime.deadline.tick import Tick, checked_deadline_ms, checked_moment_s
from motedge.runtime.deadline.watchdog import Watchdog
from motedge.runtime.deadline.worker import ThreadWorker, Worker
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.chunk import FRESH, ActionChunk
from motedge.runtime.policy.observation import Observation
from motedge.runtime.request import SamplerSettings

LOG = logging.getLogger(__name__)
# Of warm-up ticks; given, so that the policy's own sequence of seeds stays where it is
_WARM_UP_SEED = 0
# Ticks of a point that are not measured: the first pays for prompts and buffers and runs piece by piece on a GPU, the
# second is captured as a CUDA graph
_COLD_TICKS = 2


class ActingPolicy(Protocol):
    """What is given a deadline. `motedge.runtime.policy.Policy` is one."""

    settings: SamplerSettings

    def act(
        self,
        observation: Observation,
        *,
        seed: Optional[int] = None,
        settings: Optional[SamplerSettings] = None,
        committed: Optional[FloatArray] = None,
    ) -> ActionChunk:
        """The next chunk of actions; `committed` as in `motedge.runtime.policy.Policy.act`."""
        ...

    def close(self) -> None:
        """Frees it."""
        ...


class DeadlinePolicy:
    """Answers every tick by its deadline: with a fresh chunk, with what is left of an earlier one, or with an error.

    `act` is for one thread at a time; ticks run in a thread of their own, one after the other, and are never cut short:
    a late one runs to its end, and its chunk is kept for later misses, with the time of its own observation. A chunk of
    kind "fresh" comes from the observation of this very call, by its deadline; everything else is "held".
    """

    def __init__(
        self,
        policy: ActingPolicy,
        ladder: Optional[Ladder] = None,
        *,
        deadline_ms: Optional[float] = None,
        options: Optional[DeadlineOptions] = None,
        clock: Optional[Clock] = None,
        worker: Optional[Worker] = None,
    ) -> None:
        """Takes over the policy, which is closed with it.

        Args:
            policy: What acts.
            ladder: Operating points; None derives them from the policy's settings.
            deadline_ms: For calls of `act` that give none.
            options: Margins, and what happens where nothing fits.
            clock: The time, by which observations are stamped too.
            worker: Runs the ticks; None starts a thread.

        Raises:
            UsageError: a deadline out of range, or a policy that thinks within its ticks.
        """
        _require_even_ticks(policy)
        self._policy, self._options = policy, options or DeadlineOptions()
        self._ladder = Ladder.from_settings(policy.settings) if ladder is None else ladder
        self._default_ms = None if deadline_ms is None else checked_deadline_ms(deadline_ms)
        self._clock = clock or MonotonicClock()
        self._tracker = LatencyTracker(self._ladder)
        self._scheduler = Scheduler(self._ladder, self._tracker, self._options)
        self._last = LastChunk(self._options.max_age_s)
        self._watchdog = Watchdog(worker or ThreadWorker(self._clock), self._clock, self._last)
        self._counters = DeadlineCounters.of(point.name for point in self._ladder)
        self._entered, self._closed = threading.Lock(), False

    @property
    def ladder(self) -> Ladder:
        """The operating points, best first."""
        return self._ladder

    @property
    def counters(self) -> DeadlineCounters:
        """What became of all ticks so far; a copy."""
        return self._counters.copy()

    @property
    def latencies(self) -> dict[str, dict[str, Any]]:
        """For each operating point its typical and its predicted time in ms, and how many ticks were measured."""
        return self._tracker.to_dict()

    def act(
        self,
        observation: Observation,
        *,
        deadline_ms: Optional[float] = None,
        seed: Optional[int] = None,
        observed_at_s: Optional[float] = None,
        committed: Optional[FloatArray] = None,
    ) -> ActionChunk:
        """The next chunk of actions, by the deadline.

        Args:
            observation: What the robot sees and is told.
            deadline_ms: From this call to the answer; None takes the policy's own.
            seed: As for the policy.
            observed_at_s: When the observation was made, on the policy's clock (`time.monotonic`); None: now.
            committed: fp32 [n, 8], actions executed in any case from the observation on, as for the policy. A fresh
                chunk begins with them; a held one is what was made before.

        Returns:
            A chunk whose `kind` is "fresh", or "held" where the deadline was missed; `details["deadline"]` says more:
                deadline_ms, took_ms: float, both from the call
                met: bool, true exactly where the chunk is fresh
                operating_point: str, of this tick, whatever the chunk comes from; None where nothing was started
                trained, forwards: bool and int, of that point; None where nothing was started
                verdict: str, why that point: "fits", "trial", "unknown", "impossible", "refused", "crowded-out"
                predicted_ms: float, or None where it is not known
                rows_left: int, rows of the chunk
                held_from, held_trained: str and bool, the point that made the rows of a "held" chunk, whose other
                    details, seed and timings are those of that chunk

        Raises:
            DeadlineMissedError: no fresh chunk by the deadline, and no earlier one with rows left.
            UsageError: the deadline is not a positive finite number, the observation is of the future, a tick of
                another thread is under way.
            ObservationError, NonFiniteError and others: the policy's own.
        """
        now_s = self._clock.now_s()
        if deadline_ms is None and self._default_ms is None:
            raise UsageError("the tick has no deadline", expected="deadline_ms, here or when the policy was made")
        limit_ms = checked_deadline_ms(self._default_ms if deadline_ms is None else deadline_ms)
        due_s = now_s + limit_ms / 1e3
        reply_by_s = max(due_s - self._options.reply_margin_ms / 1e3, now_s)
        observed_at_s = checked_moment_s(observed_at_s, now_s)
        # A copy: a late tick may read it after the caller has gone on
        given = None if committed is None else np.array(committed)
        tick = Tick(observation, seed, limit_ms, observed_at_s, now_s, due_s, reply_by_s, given)
        with self._alone():
            return self._counted(tick)

    def warm_up(self, observation: Observation, rounds: int = 5) -> dict[str, dict[str, Any]]:
        """Measures every operating point: `rounds` ticks each, after two that pay for prompts and graphs.

        Returns:
            `latencies`.

        Raises:
            UsageError: no round, or a tick of another thread is under way.
            ObservationError, NonFiniteError and others: the policy's own.
        """
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            raise UsageError("the number of warm-up rounds is wrong", expected="at least 1", got=repr(rounds))
        with self._alone():
            self._collect(math.inf)
            for point in self._ladder:
                samples = [self._measure(observation, point) for _ in range(_COLD_TICKS + rounds)]
                self._tracker.calibrate(point, samples[_COLD_TICKS:])
        return self.latencies

    def close(self, timeout_s: float = 30.0) -> None:
        """Waits for a running tick, ends the thread and closes the policy; harmless when repeated.

        Raises:
            HostError: a tick still runs after `timeout_s`; the policy is left open.
        """
        self._watchdog.close(timeout_s)
        # Not every policy may be closed twice
        if not self._closed:
            self._closed = True
            self._policy.close()

    def __enter__(self) -> DeadlinePolicy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._entered.acquire(blocking=False):
            raise UsageError(
                "two ticks at once", expected="one call after the other", fix="give each thread its own policy"
            )
        try:
            yield
        finally:
            self._entered.release()

    def _counted(self, tick: Tick) -> ActionChunk:
        outcome = FAILED
        try:
            chunk = self._answer(tick)
            outcome = MET if chunk.kind == FRESH else MISSED
            return chunk
        except DeadlineMissedError:
            outcome = MISSED
            raise
        finally:
            self._counters.end_tick(outcome)

    def _answer(self, tick: Tick) -> ActionChunk:
        self._tracker.begin_tick()
        if not self._collect(tick.reply_by_s):
            return self._rest(tick, Choice(None, CROWDED_OUT, None))
        left_ms = tick.left_ms(self._clock.now_s())
        choice = self._scheduler.choose(left_ms, tick.whole_ms, may_try=self._last.covers(tick.due_s))
        self._counters.predicted_misses += choice.predicted_miss
        if choice.point is None:
            return self._rest(tick, choice)
        self._counters.chosen[choice.point.name] += 1
        self._counters.trials += choice.verdict == TRIAL
        self._start(tick.observation, tick.seed, choice.point, tick.observed_at_s, tick.committed)
        if not self._watchdog.ended(tick.reply_by_s):
            return self._rest(tick, choice)
        made = self._watchdog.take()
        self._tracker.observe(made.point, made.took_ms)
        now_s = self._clock.now_s()
        if now_s > tick.due_s:
            # It ended just as the watchdog would have answered: late is late, if only by a little
            self._counters.late_chunks += 1
            return self._rest(tick, choice)
        self._scheduler.settle(choice, True)
        return mark_reply(dataclasses.replace(made.chunk, age_s=now_s - tick.observed_at_s), tick, choice, now_s)

    def _start(
        self,
        observation: Observation,
        seed: Optional[int],
        point: OperatingPoint,
        observed_at_s: Optional[float],
        committed: Optional[FloatArray] = None,
    ) -> None:
        def act() -> ActionChunk:
            return self._policy.act(observation, seed=seed, settings=point.settings, committed=committed)

        self._watchdog.start(act, point, observed_at_s)

    def _measure(self, observation: Observation, point: OperatingPoint) -> float:
        self._start(observation, _WARM_UP_SEED, point, None)
        self._watchdog.ended(math.inf)
        return self._watchdog.take().took_ms

    def _collect(self, until_s: float) -> bool:
        """Waits for a tick that outlived its deadline; whether the worker is free."""
        if self._watchdog.idle:
            return True
        if not self._watchdog.ended(until_s):
            return False
        try:
            made = self._watchdog.take()
        except Exception as error:  # noqa: BLE001 -- its tick was answered and counted as missed; this one goes on
            self._counters.late_errors += 1
            self._counters.last_late_error = f"{type(error).__name__}: {error}"
            LOG.warning("a tick failed after its deadline: %s", error)
        else:
            self._tracker.observe(made.point, made.took_ms)
            self._counters.late_chunks += 1
        return True

    def _rest(self, tick: Tick, choice: Choice) -> ActionChunk:
        """The answer to a miss."""
        self._scheduler.settle(choice, False)
        self._counters.crowded_out += choice.verdict == CROWDED_OUT
        self._counters.refused += choice.verdict == REFUSED
        now_s = self._clock.now_s()
        rest = self._last.rest(now_s)
        if rest is None:
            self._counters.unanswered += 1
            raise missed_error(tick, choice, now_s, self._options.max_age_s)
        self._counters.held += 1
        return mark_reply(rest, tick, choice, now_s)


def _require_even_ticks(policy: ActingPolicy) -> None:
    """UsageError for a `motedge.runtime.reasoned.policy.ReasonedPolicy` without a slice."""
    if getattr(policy, "thinks_in_act", False):
        raise UsageError(
            "a policy that thinks within its ticks can't keep a deadline",
            expected="a reasoner that is given a slice, and think() between ticks",
            why="the time of a reply would be taken for that of the sampler's settings",
            fix="ReasonOptions(slice_tokens=...) or slice_ms; of a command, --reason-slice or --reason-slice-ms",
        )


def with_deadlines(policy: ActingPolicy, ladder: Optional[Ladder] = None, **options: Any) -> DeadlinePolicy:
    """`DeadlinePolicy(policy, ladder, ...)`: `with with_deadlines(load_policy(bundle), deadline_ms=100) as policy`."""
    return DeadlinePolicy(policy, ladder, **options)
