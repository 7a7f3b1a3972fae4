"""After a crash on the GPU the whole context is lost. It is rebuilt once; a second crash is reported and stays."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Optional

from motedge.errors import HostError, MotedgeError, UsageError
from motedge.runtime.cuda.errors import StickyCudaError
from motedge.runtime.engine import IntArray
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.tick import PolicyTick, TickRequest, TickResult
from motedge.runtime.request import SamplerSettings

LOG = logging.getLogger(__name__)
# A kernel that crashes twice will crash again: memory, engine or driver is broken
_REBUILDS = 1
_RESTART = "restart the process; if it happens again: compute-sanitizer, memory test, other driver or engine"


class RecoveringTick:
    """A `PolicyTick` around one that can be made anew. The request that met the crash is run again."""

    # Two threads must not rebuild one context
    prepares_aside = False

    def __init__(self, make: Callable[[], PolicyTick], reset: Callable[[], None]) -> None:
        """Makes the first tick.

        Args:
            make: opens context, engines and buffers.
            reset: gives up the broken context, after whatever of the old tick could be closed has been.
        """
        self._make, self._reset = make, reset
        self._tick: Optional[PolicyTick] = make()
        self._seen: Optional[Observation] = None
        self._lost: Optional[str] = None
        self._closed = False
        self.rebuilds = 0

    @property
    def tick(self) -> PolicyTick:
        """The one at work. Raises HostError when there is none any more."""
        if self._closed:
            raise UsageError("the policy was closed", fix="load it again")
        if self._tick is None:
            raise HostError(
                "the GPU can't be used any more in this process",
                got=self._lost,
                fix=_RESTART,
            )
        return self._tick

    def see(self, observation: Observation) -> tuple[str, ...]:
        """See `PolicyTick.see`."""
        self._seen = observation
        try:
            return self.tick.see(observation)
        except StickyCudaError as error:
            self._rebuild(error)
            return self.tick.see(observation)

    def seen(self) -> Image:
        """See `PolicyTick.seen`."""
        return self.tick.seen()

    def run(self, request: TickRequest, settings: SamplerSettings) -> TickResult:
        """See `PolicyTick.run`."""
        try:
            return self.tick.run(request, settings)
        except StickyCudaError as error:
            self._rebuild(error)
        if self._seen is not None:
            self.tick.see(self._seen)
        try:
            result = self.tick.run(request, settings)
        except StickyCudaError as error:
            self._rebuild(error)
            raise
        launch = f"{result.counters.launch}; after the context was rebuilt"
        return dataclasses.replace(result, counters=dataclasses.replace(result.counters, launch=launch))

    def prepare(self, token_ids: IntArray) -> None:
        """See `PolicyTick.prepare`."""
        try:
            self.tick.prepare(token_ids)
        except StickyCudaError as error:
            self._rebuild(error)
            self.tick.prepare(token_ids)

    def rehearse(self, token_ids: IntArray) -> Iterator[None]:
        """See `PolicyTick.rehearse`. A lost context is for the next request to find."""
        yield from self.tick.rehearse(token_ids)

    def memory_bytes(self) -> dict[str, int]:
        """See `PolicyTick.memory_bytes`."""
        return self.tick.memory_bytes()

    def close(self) -> None:
        """See `PolicyTick.close`."""
        self._closed = True
        if self._tick is not None:
            self._tick.close()
            self._tick = None

    def _rebuild(self, error: StickyCudaError) -> None:
        """Makes everything anew, or raises `error` if that has been done already."""
        LOG.error("the GPU's context is lost: %s", error)
        old, self._tick, self._lost = self._tick, None, error.what
        if old is not None:
            # Nothing in a lost context can be freed in order; what its objects hold of the host can
            with contextlib.suppress(MotedgeError):
                old.close()
        with contextlib.suppress(MotedgeError):
            self._reset()
        if self.rebuilds >= _REBUILDS:
            raise error
        self.rebuilds += 1
        try:
            self._tick = self._make()
        except MotedgeError as failure:
            self._lost = f"{error.what}; anew: {failure.what}"
            raise HostError(
                "the GPU's context is lost, and this process can't have another one",
                got=error.got or error.what,
                why="after a kernel's crash a driver may refuse everything that the process asks of it: "
                + failure.what,
                fix=_RESTART,
            ) from error
        LOG.warning("the GPU's context was rebuilt")
