"""Work for a library that must always be called from one thread, by callers that come from many."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitedEnough
from typing import Optional, TypeVar

from motedge.errors import UsageError

_Result = TypeVar("_Result")
# A signal that comes just before a wait begins is not looked at before its end: a Ctrl-C would be as late as the work
_LOOK_UP_S = 0.2


class OneThread:
    """A thread of its own, in which everything is made, used and closed.

    onnxruntime keeps handles, workspaces and captured graphs by calling thread, and gives none back before its session
    ends: a server with a thread a request would grow without end.
    """

    def __init__(self, name: str, what: str) -> None:
        """`name`: of the thread; `what` does its work there, for messages."""
        self._what = what
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._closed, self._lock = False, threading.Lock()
        # Started now: a caller that is interrupted while it starts would leave a second one to be started later
        self._owner = self._pool.submit(threading.get_ident).result()

    def call(self, work: Callable[[], _Result]) -> _Result:
        """Does it there and waits; what it raises comes through. Called from the thread itself, does it at once.

        Raises:
            UsageError: after `close`.
        """
        if self.inside:
            return work()
        with self._lock:
            if self._closed:
                raise UsageError(f"{self._what} was closed", fix="open it again")
            done = self._pool.submit(work)
        return _wait(done)

    @property
    def inside(self) -> bool:
        """Whether the caller is in the thread itself."""
        return threading.get_ident() == self._owner

    def close(self, last: Optional[Callable[[], object]] = None) -> None:
        """Ends the thread once what was asked for is done, `last` of all; harmless when repeated."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            done = None if last is None else self._pool.submit(last)
        try:
            if done is not None:
                _wait(done)
        finally:
            self._pool.shutdown()


def _wait(done: Future[_Result]) -> _Result:
    while True:
        try:
            return done.result(_LOOK_UP_S)
        except WaitedEnough:
            # The work may raise one, too
            if done.done():
                return done.result()
