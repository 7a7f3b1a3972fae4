"""Work that takes a while: what it is at is shown where somebody watches, and SIGTERM ends it as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, Optional


@contextlib.contextmanager
def watched_work() -> Iterator[Optional[Callable[[str], None]]]:
    """Yields what shows a line in the place of the one before, on stderr; None where that is no terminal."""

    def show(words: str) -> None:
        print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)

    def interrupt(number: int, frame: Optional[Any]) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        # Not the main thread: whoever runs it there has its own ways
        before = None
    watched = sys.stderr.isatty()
    try:
        yield show if watched else None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        if watched:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
