"""Whose turn it is: which of a generator's requests and chunks wait for one another, and in which thread they run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Optional, Protocol, TypeVar

from motedge.errors import UsageError
from motedge.runtime.one_thread import OneThread

_Result = TypeVar("_Result")


class Turns(Protocol):
    """Work waits until it is its turn; what it raises comes through."""

    @property
    def given_up(self) -> bool:
        """Whether whoever asked for the request under way waits no more: it may end at its next step."""
        ...

    def request(self, work: Callable[[], _Result]) -> _Result:
        """A request to the generator: never two at once."""
        ...

    def chunk(self, work: Callable[[], _Result]) -> _Result:
        """What a decoder is asked for: never two at once. May be called by a request, from its watch."""
        ...

    def close(self, work: Callable[[], object]) -> None:
        """The end: once everything under way is done."""
        ...


class HostTurns:
    """On the host, where a chunk does not wait for a request."""

    given_up = False

    def __init__(self) -> None:
        # The second one is taken after the first, where both are
        self._requests, self._chunks = threading.Lock(), threading.Lock()

    def request(self, work: Callable[[], _Result]) -> _Result:
        """See `Turns.request`."""
        with self._requests:
            return work()

    def chunk(self, work: Callable[[], _Result]) -> _Result:
        """See `Turns.chunk`."""
        with self._chunks:
            return work()

    def close(self, work: Callable[[], object]) -> None:
        """See `Turns.close`."""
        with self._requests, self._chunks:
            work()


class DeviceTurns:
    """On a GPU: one stream and one workspace, so that everything waits for everything, but for a request's own watch.

    With `thread` all of it runs there, watches too.
    """

    def __init__(self, thread: Optional[OneThread] = None) -> None:
        self._thread, self._lock = thread, threading.RLock()
        self._requesting = self.given_up = False

    def request(self, work: Callable[[], _Result]) -> _Result:
        """See `Turns.request`. UsageError from within a watch."""

        def alone() -> _Result:
            self._refuse_inside()
            self._requesting, self.given_up = True, False
            try:
                return work()
            finally:
                self._requesting = False

        try:
            return self.chunk(alone)
        except KeyboardInterrupt:
            # The thread, if there is one, does not know of it
            self.given_up = True
            raise

    def chunk(self, work: Callable[[], _Result]) -> _Result:
        """See `Turns.chunk`."""
        if self._thread is not None:
            return self._thread.call(work)
        with self._lock:
            return work()

    def close(self, work: Callable[[], object]) -> None:
        """See `Turns.close`. UsageError from within a watch."""
        if self._thread is None:
            with self._lock:
                self._refuse_inside()
                work()
            return
        if self._thread.inside:
            self._refuse_inside()
        self._thread.close(work)

    def _refuse_inside(self) -> None:
        # Only the one whose turn it is comes here while a request is under way
        if self._requesting:
            raise UsageError("a request's own watch asks for another one", fix="wait until the request is done")
