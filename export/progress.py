"""Progress of long writes: a bar on a terminal, nothing elsewhere; and the way to stop them."""

from __future__ import annotations

import sys
import threading
from types import TracebackType


class Stopped(Exception):
    """Raised inside a writer thread after the export was interrupted, so that it removes its half-written file."""


class ByteProgress:
    """Counts bytes from several threads."""

    def __init__(self, total: int, title: str) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=title, unit="B", unit_scale=True, file=sys.stderr)

    def __call__(self, count: int) -> None:
        """Adds bytes; raises Stopped after `stop`."""
        if self._stop.is_set():
            raise Stopped
        if self._bar is not None:
            with self._lock:
                self._bar.update(count)

    def stop(self) -> None:
        """Lets every writer fail at its next step."""
        self._stop.set()

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
