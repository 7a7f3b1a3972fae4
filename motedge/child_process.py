"""A process of our own with a pipe to it: whatever becomes of one of the two, the other never waits in vain.

Processes that share a queue can't promise that: one that is killed while it writes leaves half a message there, and a
reader that waits for the rest of it, although nobody is left to send it. Here the pipe ends with the process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from motedge.errors import HostError

# How long one that was killed may take until the system has taken it away
_LAST_S = 10.0


class ChildGoneError(HostError):
    """A process ended before it answered."""


class ChildProcess:
    """Runs a function in a process of its own, until that returns or the process is closed.

    It is deaf to SIGINT and SIGTERM, which go to a whole group: the first process heeds them, and ends this one.
    """

    def __init__(self, target: Callable[..., None], *args: Any, name: str) -> None:
        """Starts it.

        Args:
            target: called there with the other end of the pipe, then with `args`; a function that can be imported.
            args: small: what is larger than a pipe holds up whoever starts it, so send it when the process is up.
            name: of the process, for people.
        """
        # A forked process would share memory with this one, and can't use CUDA
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_run, args=(target, theirs, args), name=name, daemon=True)
        with _deaf():
            self._process.start()
        # Also where nobody calls close: at exit a daemon is asked to end by SIGTERM, to which this one is deaf
        self._kill = weakref.finalize(self, _kill, self._process)
        # So that the end of the process is an end of file here
        theirs.close()

    def send(self, value: object) -> None:
        """Sends a value, as a copy.

        Raises:
            ChildGoneError: nobody is there to read it.
        """
        try:
            # Not Connection.send: torch has tensors travel that way as open files, of which there can be too many
            self.connection.send_bytes(pickle.dumps(value))
        except OSError as error:
            raise self._gone() from error

    def receive(self) -> Any:
        """The next value that the function sends.

        Raises:
            ChildGoneError: the process ended first.
        """
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error

    def close(self, patience_s: float = 0.0) -> None:
        """Ends the process: its pipe ends, and if it has not heeded that after `patience_s` seconds, by force."""
        self.connection.close()
        self._process.join(patience_s)
        self._kill()

    def _gone(self) -> ChildGoneError:
        self._process.join(_LAST_S)
        code = self._process.exitcode
        killed = code is not None and code < 0
        return ChildGoneError(
            "a process has ended",
            got=f"signal {signal.Signals(-code).name}" if killed and code is not None else f"exit code {code}",
            why="the system ends a process so when its memory is exhausted" if code == -signal.SIGKILL else None,
        )


def _run(target: Callable[..., None], theirs: Connection, args: tuple[Any, ...]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The first process has closed its end, or is gone
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        target(theirs, *args)


def _kill(process: BaseProcess) -> None:
    process.kill()
    process.join(_LAST_S)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """A process that is started within is deaf to Ctrl-C from its first moment, before any of its code runs."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:
        # Not the main thread: signals are not ours to set
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
