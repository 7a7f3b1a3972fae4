"""The listener of a tick's spans: keeps them with their times, and tells NVTX, where somebody looks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Optional

from motedge.runtime.spans import Span

HOST, DEVICE = "host", "device"
# Device work is told after this span of the host, at whose end the device's work ends
_WAIT = "wait"


@dataclass(frozen=True)
class Recorded:
    """One span, in seconds of `time.perf_counter`."""

    name: str
    start_s: float
    end_s: float
    # How many spans lie around it
    depth: int
    # HOST or DEVICE
    track: str = HOST

    @property
    def ms(self) -> float:
        """How long it took."""
        return 1e3 * (self.end_s - self.start_s)


class SpanRecorder:
    """A `motedge.runtime.spans.SpanListener`. Ticks hand over between threads but never run side by side."""

    def __init__(self, nvtx: Optional[Any] = None) -> None:
        """`nvtx`: the module of that name; ranges go there too."""
        self._nvtx = nvtx
        self._open: list[tuple[str, float]] = []
        self._done: list[Recorded] = []
        self._waited_s = 0.0

    def begin(self, name: str) -> None:
        """See SpanListener."""
        if self._nvtx is not None:
            self._nvtx.push_range(f"motedge: {name}")
        self._open.append((name, time.perf_counter()))

    def end(self, name: str) -> None:
        """See SpanListener."""
        now_s = time.perf_counter()
        begun, start_s = self._open.pop()
        self._done.append(Recorded(begun, start_s, now_s, len(self._open)))
        if name == _WAIT:
            self._waited_s = now_s
        if self._nvtx is not None:
            self._nvtx.pop_range()

    def device(self, name: str, start_ms: float, end_ms: float) -> None:
        """See SpanListener."""
        end_s = self._waited_s or time.perf_counter()
        self._done.append(Recorded(name, end_s + start_ms / 1e3, end_s + end_ms / 1e3, 0, DEVICE))

    def take(self) -> tuple[Recorded, ...]:
        """What was heard since the last call, in the order in which it began; what is still open is left out."""
        done = sorted(self._done, key=lambda span: (span.start_s, span.depth))
        self._open, self._done, self._waited_s = [], [], 0.0
        return tuple(done)


def find_nvtx() -> Optional[Any]:
    """The nvtx package, where it is installed."""
    try:
        import nvtx
    except ImportError:
        return None
    return nvtx


def span_cost_us(repeats: int = 2000) -> float:
    """What one recorded span costs, in microseconds."""
    recorder = SpanRecorder()
    start_s = time.perf_counter()
    for _ in range(repeats):
        with Span(recorder, "cost"):
            pass
    return 1e6 * (time.perf_counter() - start_s) / repeats
