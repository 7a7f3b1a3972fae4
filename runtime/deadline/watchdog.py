"""Runs ticks beside the caller, and keeps hold of those that outlive their deadline."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from motedge.errors import InternalError
from motedge.runtime.deadline.clock import Clock
from motedge.runtime.deadline.last_chunk import LastChunk
from motedge.runtime.deadline.operating_point import OperatingPoint
from motedge.runtime.deadline.reply import KEY
from motedge.runtime.deadline.worker import Job, Worker
from motedge.runtime.finite import check_finite
from motedge.runtime.policy.chunk import ActionChunk

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """What a tick has made."""

    chunk: ActionChunk
    point: OperatingPoint
    # From its start to its end, whenever that was noticed
    took_ms: float


@dataclass(frozen=True)
class _Running:
    job: Job
    # None: its chunk is not kept
    observed_at_s: Optional[float]


class Watchdog:
    """One tick at a time. A late one is never cut short: engines can't be stopped halfway; it is collected later."""

    def __init__(self, worker: Worker, clock: Clock, last: LastChunk) -> None:
        self._worker, self._clock, self._last = worker, clock, last
        self._running: Optional[_Running] = None

    @property
    def idle(self) -> bool:
        """Whether nothing runs that has not been collected."""
        return self._running is None

    def start(self, act: Callable[[], ActionChunk], point: OperatingPoint, observed_at_s: Optional[float]) -> None:
        """Starts a tick.

        Args:
            act: Makes the chunk, at `point`.
            point: The operating point.
            observed_at_s: When its observation was made: from then on count the due times of the chunk's rows, which is
                kept for later misses. None: it is not kept.
        """
        if self._running is not None:
            raise InternalError("a tick was started while another one runs")
        began_s = self._clock.now_s()

        def work() -> Made:
            chunk = act()
            check_finite(chunk.actions, "the policy returned NaN or infinity")
            return Made(chunk, point, (self._clock.now_s() - began_s) * 1e3)

        # Before anything is waited for: a wait that is interrupted must not lose sight of what runs
        self._running = _Running(self._worker.submit(work), observed_at_s)

    def ended(self, until_s: float) -> bool:
        """Waits for the running tick until that moment; whether it has ended."""
        return self._running is None or self._worker.wait(self._running.job, until_s)

    def take(self) -> Made:
        """What the ended tick has made; raises its error. Keeps its chunk."""
        running, self._running = self._running, None
        if running is None or not running.job.done():
            raise InternalError("there is no ended tick to take")
        made: Made = running.job.result()
        if running.observed_at_s is not None:
            point = {"operating_point": made.point.name, "trained": made.point.trained}
            kept = dataclasses.replace(made.chunk, details={**made.chunk.details, KEY: point})
            self._last.offer(kept, running.observed_at_s)
        return made

    def close(self, timeout_s: float) -> None:
        """Waits for a running tick and ends the thread; see Worker.close."""
        self._worker.close(timeout_s)
        self._running = None
