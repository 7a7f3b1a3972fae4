"""How much of a long copy is done: one line that changes, on a terminal; elsewhere nothing."""

from __future__ import annotations

import sys

from motedge.units import format_bytes


class ByteProgress:
    """Called with bytes that are done, of so many."""

    def __init__(self, what: str) -> None:
        self._what, self._terminal, self._shown = what, sys.stderr.isatty(), ""

    def __call__(self, done: int, total: int) -> None:
        """Shows it, when the line changes."""
        if not self._terminal or not total:
            return
        line = f"{self._what}: {100 * done // total} % of {format_bytes(total)}"
        if line != self._shown:
            print(f"\r{line:<{len(self._shown)}}", end="", file=sys.stderr, flush=True)
            self._shown = line

    def close(self) -> None:
        """Clears the line."""
        if self._shown:
            print(f"\r{'':<{len(self._shown)}}\r", end="", file=sys.stderr, flush=True)
            self._shown = ""
