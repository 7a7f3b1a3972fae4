"""Where the source of chunks runs, so that the robot's loop goes on meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Optional, Protocol

from motedge.client.clock import Clock
from motedge.errors import InternalError


class Ticket:
    """One call that was started: its result or its exception, once it is there."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._value: Any = None
        self._error: Optional[BaseException] = None
        # When the call ended on the stream's clock, s
        self.finished_s = 0.0

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._done.is_set()

    def result(self) -> Any:
        """What the call returned; raises what it raised."""
        if not self.done():
            raise InternalError("the result of a call that has not ended")
        if self._error is not None:
            raise self._error
        return self._value

    def run(self, call: Callable[[], Any], clock: Clock) -> None:
        """Makes the call and keeps whatever comes of it."""
        try:
            self._value = call()
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            self._error = error
        self.finished_s = clock.now_s()
        self._done.set()


class Worker(Protocol):
    """Runs one call at a time."""

    def start(self, call: Callable[[], Any]) -> Ticket:
        """Starts a call and returns at once."""
        ...

    def close(self, timeout_s: float) -> bool:
        """Takes no more calls; whether the running one ended within that time."""
        ...


class ThreadWorker:
    """One daemon thread, so that a source that hangs keeps neither the robot's loop nor the end of the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: queue.Queue[Optional[tuple[Ticket, Callable[[], Any]]]] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="motedge-chunk-source", daemon=True)
        self._thread.start()

    def start(self, call: Callable[[], Any]) -> Ticket:
        """Starts a call and returns at once."""
        ticket = Ticket()
        self._calls.put((ticket, call))
        return ticket

    def close(self, timeout_s: float) -> bool:
        """Takes no more calls; whether the running one ended within that time."""
        self._calls.put(None)
        self._thread.join(max(timeout_s, 0.0))
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            item = self._calls.get()
            if item is None:
                return
            ticket, call = item
            ticket.run(call, self._clock)


class SimulatedWorker:
    """Makes each call at once, in the caller's thread, and lets it end `latency_s(number)` later on the clock.

    An infinite latency is a source that hangs.
    """

    def __init__(self, clock: Clock, latency_s: Callable[[int], float]) -> None:
        self._clock = clock
        self._latency_s = latency_s
        self._started = 0

    def start(self, call: Callable[[], Any]) -> Ticket:
        """Makes the call; its ticket is done when the latency is over."""
        ticket = _SimulatedTicket(self._clock, self._clock.now_s() + self._latency_s(self._started))
        self._started += 1
        ticket.run(call, self._clock)
        ticket.finished_s = ticket.ready_s
        return ticket

    def close(self, timeout_s: float) -> bool:
        """Nothing runs between calls."""
        return True


class _SimulatedTicket(Ticket):
    def __init__(self, clock: Clock, ready_s: float) -> None:
        super().__init__()
        self._clock = clock
        self.ready_s = ready_s

    def done(self) -> bool:
        """Whether the clock has reached the call's end."""
        return super().done() and self._clock.now_s() >= self.ready_s
