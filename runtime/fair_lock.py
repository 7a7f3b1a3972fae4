"""A lock that is given in the order in which it was asked for."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """Whoever asks waits for those that asked before, and for nobody else: a thread that takes it again and again, as
    one that writes tokens does, can't keep it from another. A thread that has it may take it again."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: deque[object] = deque()
        self._owner, self._depth = 0, 0

    def __enter__(self) -> FairLock:
        me = threading.get_ident()
        with self._condition:
            if self._owner != me:
                self._wait_for_turn()
                self._owner = me
            self._depth += 1
        return self

    def __exit__(self, *exc: object) -> None:
        with self._condition:
            self._depth -= 1
            if not self._depth:
                self._owner = 0
                self._waiting.popleft()
                self._condition.notify_all()

    def _wait_for_turn(self) -> None:
        turn = object()
        self._waiting.append(turn)
        try:
            while self._waiting[0] is not turn:
                self._condition.wait()
        except BaseException:
            self._waiting.remove(turn)
            self._condition.notify_all()
            raise
