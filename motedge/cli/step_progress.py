"""How far a long run of denoising steps is: one line with a bar that grows, on a terminal; elsewhere nothing."""

from __future__ import annotations

import sys
import time

_WIDTH = 24


class StepProgress:
    """Shows steps that are done, of so many, and how long the rest will take."""

    def __init__(self) -> None:
        self._terminal, self._start, self._shown = sys.stderr.isatty(), time.monotonic(), ""

    @property
    def shown(self) -> bool:
        """Whether there is a terminal for it."""
        return self._terminal

    def __call__(self, done: int, total: int) -> None:
        """Shows it."""
        if not self._terminal or total < 1:
            return
        elapsed_s = time.monotonic() - self._start
        bar = "#" * (_WIDTH * done // total)
        rest = f", {elapsed_s / done * (total - done):.0f} s to go" if done else ""
        self._show(f"step {done} of {total} [{bar:<{_WIDTH}}] {elapsed_s:.0f} s{rest}")

    def close(self) -> None:
        """Clears the line."""
        self._show("")
        self._shown = ""

    def _show(self, line: str) -> None:
        if not self._terminal or not (line or self._shown):
            return
        end = "" if line else "\r"
        print(f"\r{line:<{len(self._shown)}}", end=end, file=sys.stderr, flush=True)
        self._shown = line
