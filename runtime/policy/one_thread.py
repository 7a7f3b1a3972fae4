"""A tick whose library must always be called from one thread, for callers that come from many."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from motedge.runtime.engine import IntArray
from motedge.runtime.one_thread import OneThread
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.tick import PolicyTick, TickRequest, TickResult
from motedge.runtime.request import SamplerSettings


class OneThreadTick:
    """A `PolicyTick` around another, which is made, used and closed in one thread of its own; see `OneThread`.

    Nothing is done beside a request: there is one thread, and the library captures graphs in a mode in which other
    threads' calls fail.
    """

    prepares_aside = False

    def __init__(self, make: Callable[[], PolicyTick]) -> None:
        """`make`: opens the tick; what it raises comes through."""
        self._thread = OneThread("motedge-tick", "the policy")
        try:
            self._tick = self._thread.call(make)
        except BaseException:
            self._thread.close()
            raise

    @property
    def tick(self) -> PolicyTick:
        """The one that does the work."""
        return self._tick

    def see(self, observation: Observation) -> tuple[str, ...]:
        """See `PolicyTick.see`."""
        return self._thread.call(lambda: self._tick.see(observation))

    def seen(self) -> Image:
        """See `PolicyTick.seen`."""
        return self._thread.call(self._tick.seen)

    def run(self, request: TickRequest, settings: SamplerSettings) -> TickResult:
        """See `PolicyTick.run`."""
        return self._thread.call(lambda: self._tick.run(request, settings))

    def prepare(self, token_ids: IntArray) -> None:
        """See `PolicyTick.prepare`."""
        self._thread.call(lambda: self._tick.prepare(token_ids))

    def rehearse(self, token_ids: IntArray) -> Iterator[None]:
        """See `PolicyTick.rehearse`."""
        steps = self._tick.rehearse(token_ids)
        while self._thread.call(lambda: next(steps, self)) is not self:
            yield

    def memory_bytes(self) -> dict[str, int]:
        """See `PolicyTick.memory_bytes`."""
        return self._thread.call(self._tick.memory_bytes)

    def close(self) -> None:
        """See `PolicyTick.close`."""
        self._thread.close(self._tick.close)
