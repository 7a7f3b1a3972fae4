"""Where a tick spends its time, for whoever listens: named spans around the work, in the order in which it happens.

Nobody listens by default, and a span then costs a quarter of a microsecond. `motedge profile` listens; so may a tracer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Optional, Protocol

from motedge.errors import InternalError


class SpanListener(Protocol):
    """Is told of spans. Called within what is timed, so it must be quick; spans of one thread are nested."""

    def begin(self, name: str) -> None:
        """A span starts, within those of this thread that have not ended."""
        ...

    def end(self, name: str) -> None:
        """The innermost span of this thread ends."""
        ...

    def device(self, name: str, start_ms: float, end_ms: float) -> None:
        """Work on a GPU by its own clock, told once it is done.

        Args:
            name: of the work.
            start_ms: when it began, in ms before the end of the device's work for this tick: 0 or less.
            end_ms: when it ended, likewise.
        """
        ...


class Span:
    """One stretch of time; `with span("prefill"):`."""

    __slots__ = ("_listener", "_name")

    def __init__(self, listener: SpanListener, name: str) -> None:
        self._listener, self._name = listener, name

    def __enter__(self) -> None:
        self._listener.begin(self._name)

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._listener.end(self._name)


class _Nothing:
    """A span that nobody listens to."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        return None


_NOTHING = _Nothing()
_listener: Optional[SpanListener] = None
_device_steps = False


def span(name: str) -> contextlib.AbstractContextManager[None]:
    """A span around a `with` block; told to the listener, if there is one."""
    listener = _listener
    return _NOTHING if listener is None else Span(listener, name)


def device_span(name: str, start_ms: float, end_ms: float) -> None:
    """Work that a GPU has timed itself; see `SpanListener.device`."""
    if _listener is not None:
        _listener.device(name, start_ms, end_ms)


def device_steps_wanted() -> bool:
    """Whether a GPU's loop should tell each step and branch; it is then launched piece by piece."""
    return _device_steps


@contextlib.contextmanager
def listening(listener: SpanListener, *, device_steps: bool = False) -> Iterator[None]:
    """Spans of the whole process go to `listener` within the block.

    Args:
        listener: is told.
        device_steps: whether a GPU's loop is asked for the time of each step, for which it gives up its one launch.

    Raises:
        InternalError: another one is listening.
    """
    global _listener, _device_steps
    if _listener is not None:
        raise InternalError("two listeners of spans at once")
    _listener, _device_steps = listener, device_steps
    try:
        yield
    finally:
        _listener, _device_steps = None, False
