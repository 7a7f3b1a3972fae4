"""A lock that is given in the order in which it was asked for."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """Whoever asks waits for those that asked before, and for nobody else: a thread that takes it again and again, as
    one that writes tokens does, can't keep it from another. Not reentrant."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: deque[object] = deque()

    def __enter__(self) -> FairLock:
        turn = object()
        with self._condition:
            self._waiting.append(turn)
            try:
                while self._waiting[0] is not turn:
                    self._condition.wait()
            except BaseException:
                self._waiting.remove(turn)
                self._condition.notify_all()
                raise
        return self

    def __exit__(self, *exc: object) -> None:
        with self._condition:
            self._waiting.popleft()
            self._condition.notify_all()
