"""Writes replies in a thread of its own, a step at a time, so that ticks need not leave time for it."""

from __future__ import annotations

import logging
import threading
from typing import Optional, Union

from motedge.runtime.reasoned.reasoning import Reasoning
from motedge.runtime.reasoned.thought import Thinking

LOG = logging.getLogger(__name__)
# What a thought comes to: what was written, or why it broke off
Result = Union[Reasoning, Exception]


class BackgroundThinker:
    """One thought at a time. What came of it waits to be taken; nothing here waits for a step but `close`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._given: Optional[Thinking] = None
        self._result: Optional[Result] = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="motedge-thinker", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a thought is under way."""
        return self._given is not None

    @property
    def idle(self) -> bool:
        """Whether none is under way, and nothing waits to be taken."""
        with self._changed:
            return self._given is None and self._result is None

    def begin(self, thinking: Optional[Thinking]) -> None:
        """Gives it a thought in the place of the one that is under way or was not taken, which is given up; None: none.

        The step that runs is done first; it ends in the thread.
        """
        with self._changed:
            self._given, self._result = thinking, None
            self._changed.notify_all()

    def take(self) -> Optional[Result]:
        """What came of the last thought, once; None: nothing yet."""
        with self._changed:
            result, self._result = self._result, None
            return result

    def close(self) -> None:
        """Gives up what is under way, and waits for the step that runs; harmless when repeated."""
        with self._changed:
            self._closed, self._given = True, None
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._given is None and not self._closed:
                    self._changed.wait()
                thinking = self._given
            if thinking is None:
                return
            self._think(thinking)

    def _think(self, thinking: Thinking) -> None:
        """Goes on until it is over or another is wanted."""
        try:
            while self._given is thinking:
                next(thinking)
        except StopIteration as done:
            self._finish(thinking, done.value)
        except Exception as error:
            # Whatever it was, the robot goes on, and is told
            LOG.warning("thinking in the background broke off", exc_info=error)
            self._finish(thinking, error)
        finally:
            thinking.close()

    def _finish(self, thinking: Thinking, result: Result) -> None:
        with self._changed:
            if self._given is thinking:
                self._given, self._result = None, result
