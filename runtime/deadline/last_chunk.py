"""The last chunk that was made, and what is left of it when a tick has none of its own."""

from __future__ import annotations

import dataclasses
from typing import Optional

import numpy as np

from motedge.runtime.policy.chunk import HELD, ActionChunk


class LastChunk:
    """Keeps the chunk of the latest observation. A row counts as long as its due time lies ahead, and never after."""

    def __init__(self, max_age_s: Optional[float] = None) -> None:
        """`max_age_s`: how old the observation may be of which rows are still given; None: while there are rows."""
        self._max_age_s = max_age_s
        self._chunk: Optional[ActionChunk] = None
        self._observed_at_s = 0.0

    def offer(self, chunk: ActionChunk, observed_at_s: float) -> None:
        """Takes a copy of a fresh chunk, unless one of a later observation is here."""
        if self._chunk is None or observed_at_s >= self._observed_at_s:
            # A copy: the caller may change the actions that it was given
            self._chunk = dataclasses.replace(chunk, actions=chunk.actions.copy())
            self._observed_at_s = observed_at_s

    def rest(self, now_s: float) -> Optional[ActionChunk]:
        """The rows due after `now_s`, as a chunk of kind HELD; None where there are none, or all are too old."""
        age_s = now_s - self._observed_at_s
        if self._chunk is None or (self._max_age_s is not None and age_s > self._max_age_s):
            return None
        chunk = self._chunk
        due_s = self._observed_at_s + (np.arange(len(chunk.actions), dtype=np.float64) + 1) / chunk.rate_hz
        passed = int(np.searchsorted(due_s, now_s, side="right"))
        if passed == len(chunk.actions):
            return None
        return dataclasses.replace(
            chunk, actions=chunk.actions[passed:].copy(), kind=HELD, first_row=passed, age_s=age_s
        )

    def covers(self, moment_s: float) -> bool:
        """Whether rows will be left at that moment."""
        return self.rest(moment_s) is not None
