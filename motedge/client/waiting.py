"""Says in the log that a server is waited for, and why, to whoever would take the silence for a fault."""

from __future__ import annotations

import logging

from motedge.client.clock import Clock

LOG = logging.getLogger(__name__)
# A wait that ends by then is not worth a line, and one that goes on is worth no more of them
FIRST_S, AGAIN_S = 2.0, 30.0


class Waiting:
    """Warnings about the waits for one server: none before a wait is 2 s old, and 30 s at least between two."""

    def __init__(self, url: str, clock: Clock) -> None:
        """Of one address, by that clock."""
        self._url, self._clock = url, clock
        self._begun_s = self._until_s = clock.now_s()
        self._said_s = float("-inf")

    def begin(self, until_s: float) -> None:
        """Another wait, which goes on until then on the clock."""
        self._begun_s, self._until_s = self._clock.now_s(), until_s

    def go_on(self, cause: str, pause_s: float = 0.0) -> None:
        """It goes on for so long before anything is tried again: says why, if it is time for that."""
        now_s = self._clock.now_s()
        if now_s + pause_s >= self._begun_s + FIRST_S and now_s >= self._said_s + AGAIN_S:
            self._said_s = now_s
            LOG.warning("waiting for %s: %s; up to %.0f s", self._url, cause, max(self._until_s - now_s, 0.0))


def cause_of(error: BaseException) -> str:
    """Why a try failed, in the system's words where it has any: "connection refused"."""
    words = getattr(error, "strerror", None)
    if isinstance(error, OSError) and words:
        return str(words)[:1].lower() + str(words)[1:]
    return str(error) or type(error).__name__
