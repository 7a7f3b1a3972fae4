"""A candidate in a process of its own: its memory is its own there, and what kills it kills no other."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any, Optional

from motedge.bench.acting import ActingOptions, open_acting
from motedge.bench.session import Answers, Memory, Session, Stretch, Times
from motedge.errors import MotedgeError, ObservationError
from motedge.runtime.request import SamplerSettings

_DONE, _FAILED = "done", "failed"
# How long a process may take to end by itself
_PATIENCE_S = 10.0


class CellError(MotedgeError):
    """A candidate could not do what it was asked."""


class WorkerGoneError(CellError):
    """Its process has ended."""


class Worker:
    """Has a candidate work in a process that is its own. `Working` says what the calls do.

    Raises:
        CellError: from every call, what went wrong there; `WorkerGoneError` where the process has ended.
        ObservationError: an observation that the policy can't take, whatever its recipe.
    """

    def __init__(self, options: ActingOptions) -> None:
        # A forked process would share memory with this one, and can't use CUDA
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, options), name="motedge-bench", daemon=True)
        with _deaf():
            self._process.start()
        # So that the end of the process is an end of file here
        theirs.close()
        try:
            self._received()
        except BaseException:
            self.close()
            raise

    def answers(self, settings: SamplerSettings, seed: int) -> Answers:
        """See `Working.answers`."""
        return self._call("answers", settings, seed)  # type: ignore[no-any-return]

    def times(self, settings: SamplerSettings, lead_in: int, count: int, first: int) -> Times:
        """See `Working.times`."""
        return self._call("times", settings, lead_in, count, first)  # type: ignore[no-any-return]

    def stretch(self, settings: SamplerSettings, lead_in: int, seconds: float) -> Stretch:
        """See `Working.stretch`."""
        return self._call("stretch", settings, lead_in, seconds)  # type: ignore[no-any-return]

    def memory(self) -> Memory:
        """See `Working.memory`."""
        return self._call("memory")  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends the process, by force if it does not heed."""
        with contextlib.suppress(OSError):
            self._ours.send(None)
        self._ours.close()
        self._process.join(_PATIENCE_S if sys.exc_info()[0] is None else 0.0)
        if self._process.is_alive():
            self._process.kill()
        self._process.join(_PATIENCE_S)

    def _call(self, name: str, *args: Any) -> Any:
        try:
            self._ours.send((name, args))
        except OSError as error:
            raise self._gone() from error
        return self._received()

    def _received(self) -> Any:
        try:
            kind, value = self._ours.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error
        if kind == _DONE:
            return value
        raise _raised(value)

    def _gone(self) -> WorkerGoneError:
        self._process.join(_PATIENCE_S)
        code = self._process.exitcode
        killed = code is not None and code < 0
        got = f"signal {signal.Signals(-code).name}" if killed and code is not None else f"exit code {code}"
        why = "the system ends a process so when its memory is exhausted" if code == -signal.SIGKILL else None
        return WorkerGoneError("the candidate's process has ended", got=got, why=why)


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


def _serve(theirs: Connection, options: ActingOptions) -> None:
    """The other process: opens, says so, and does what it is told until nothing more comes."""
    # What is sent to the whole group is the first process's to heed, which ends this one
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError), contextlib.ExitStack() as opened:
        try:
            session = Session(open_acting(options))
            opened.callback(session.close)
        except Exception as error:  # noqa: BLE001 -- told to the first process
            theirs.send((_FAILED, _told(error)))
            return
        theirs.send((_DONE, None))
        while (asked := theirs.recv()) is not None:
            name, args = asked
            try:
                answer: Any = (_DONE, getattr(session, name)(*args))
            except Exception as error:  # noqa: BLE001 -- told to the first process
                answer = (_FAILED, _told(error))
            theirs.send(answer)


def _told(error: Exception) -> dict[str, Optional[str]]:
    """An error as text, for not every one can be sent."""
    if isinstance(error, MemoryError):
        return {"kind": "MemoryError", "what": "this machine ran out of memory", "fix": "--one-at-a-time"}
    if not isinstance(error, MotedgeError):
        return {"kind": type(error).__name__, "what": f"{type(error).__name__}: {error}"}
    found = {name: getattr(error, name) for name in ("what", "expected", "got", "why", "fix")}
    told = {name: None if value is None else str(value) for name, value in found.items()}
    return {"kind": "ObservationError" if isinstance(error, ObservationError) else type(error).__name__, **told}


def _raised(told: Mapping[str, Any]) -> MotedgeError:
    kind = ObservationError if told["kind"] == "ObservationError" else CellError
    return kind(told["what"], **{name: told.get(name) for name in ("expected", "got", "why", "fix")})
