"""A tick whose library must always be called from one thread, for callers that come from many."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from motedge.runtime.engine import IntArray
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.tick import PolicyTick, TickRequest, TickResult
from motedge.runtime.request import SamplerSettings

_Result = TypeVar("_Result")


class OneThreadTick:
    """A `PolicyTick` around another, which is made, used and closed in one thread of its own.

    Nothing is done beside a request: there is one thread, and the library captures graphs in a mode in which other
    threads' calls fail.

    onnxruntime keeps handles, workspaces and captured graphs by calling thread, and gives none back before its session
    ends: a server with a thread a request would grow without end.
    """

    prepares_aside = False

    def __init__(self, make: Callable[[], PolicyTick]) -> None:
        """`make`: opens the tick; what it raises comes through."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="motedge-tick")
        try:
            self._tick = self._call(make)
        except BaseException:
            self._thread.shutdown()
            raise
        self._closed = False

    @property
    def tick(self) -> PolicyTick:
        """The one that does the work."""
        return self._tick

    def see(self, observation: Observation) -> tuple[str, ...]:
        """See `PolicyTick.see`."""
        return self._call(lambda: self._tick.see(observation))

    def seen(self) -> Image:
        """See `PolicyTick.seen`."""
        return self._call(self._tick.seen)

    def run(self, request: TickRequest, settings: SamplerSettings) -> TickResult:
        """See `PolicyTick.run`."""
        return self._call(lambda: self._tick.run(request, settings))

    def prepare(self, token_ids: IntArray) -> None:
        """See `PolicyTick.prepare`."""
        self._call(lambda: self._tick.prepare(token_ids))

    def memory_bytes(self) -> dict[str, int]:
        """See `PolicyTick.memory_bytes`."""
        return self._call(self._tick.memory_bytes)

    def close(self) -> None:
        """See `PolicyTick.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            self._call(self._tick.close)
        finally:
            self._thread.shutdown()

    def _call(self, work: Callable[[], _Result]) -> _Result:
        return self._thread.submit(work).result()
