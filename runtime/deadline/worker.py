"""The thread that ticks run in, so that the caller can leave when the deadline has come."""

from __future__ import annotations

import math
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Optional, Protocol

from motedge.errors import HostError
from motedge.runtime.deadline.clock import Clock

Job = Future[Any]
# Beyond what a system's wait takes at once; waiting goes on in pieces
_LONGEST_WAIT_S = 60.0


class Worker(Protocol):
    """Runs one piece of work after the other, beside the caller."""

    def submit(self, work: Callable[[], Any]) -> Job:
        """Starts work, or queues it behind what runs. Errors, whatever they are, end up in the job."""
        ...

    def wait(self, job: Job, until_s: float) -> bool:
        """Waits until the job has ended or the clock shows `until_s` (may be infinite); whether it has ended."""
        ...

    def close(self, timeout_s: float) -> None:
        """Waits for what runs and stops; harmless when repeated.

        Raises:
            HostError: work still runs after `timeout_s`.
        """
        ...


class ThreadWorker:
    """One daemon thread, started with the first work.

    All ticks run in this one thread, so that CUDA contexts and capture see a single thread. The thread is a daemon's:
    a driver call that never returns must not keep the process from ending. It does not survive a fork.
    """

    def __init__(self, clock: Clock, name: str = "motedge-tick") -> None:
        self._clock, self._name = clock, name
        self._queue: queue.SimpleQueue[Optional[tuple[Callable[[], Any], Job]]] = queue.SimpleQueue()
        self._thread: Optional[threading.Thread] = None
        self._process, self._closed = os.getpid(), False

    def submit(self, work: Callable[[], Any]) -> Job:
        """See Worker.

        Raises:
            HostError: closed, or a forked child, in which the thread does not exist.
        """
        if self._closed:
            raise HostError("the policy is closed", fix="load it again")
        if os.getpid() != self._process:
            raise HostError(
                "a policy with deadlines was used in a forked process",
                why="its thread, and its engines' state on the GPU, stay in the parent",
                fix="load the policy in the child, or start children with the spawn method",
            )
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        job: Job = Future()
        self._queue.put((work, job))
        return job

    def wait(self, job: Job, until_s: float) -> bool:
        """See Worker."""
        while not job.done():
            left_s = until_s - self._clock.now_s()
            if left_s <= 0:
                return job.done()
            try:
                job.exception(timeout=min(left_s, _LONGEST_WAIT_S))
            except FutureTimeoutError:
                continue
        return True

    def close(self, timeout_s: float) -> None:
        """See Worker."""
        self._closed = True
        thread = self._thread
        if thread is None or os.getpid() != self._process:
            return
        self._queue.put(None)
        thread.join(None if math.isinf(timeout_s) else timeout_s)
        if thread.is_alive():
            raise HostError(
                "a tick is still running, so that the policy can't be closed",
                expected=f"an end within {timeout_s:g} s",
                why="engines can't be freed under a running tick",
                fix="wait longer, or end the process: the thread does not keep it alive",
            )
        self._thread = None

    def _serve(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            _run(*item)
            # Neither the work nor its arrays outlive the tick in this frame
            del item


def _run(work: Callable[[], Any], job: Job) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 -- whatever it is, it belongs to whoever waits for the job
        job.set_exception(error)
    else:
        job.set_result(result)
