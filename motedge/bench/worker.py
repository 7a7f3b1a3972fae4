"""A candidate in a process of its own: its memory is its own there, and what kills it kills no other."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any, Optional

from motedge.bench.acting import ActingOptions, open_acting
from motedge.bench.session import Answers, Memory, Session, Stretch, Times
from motedge.child_process import ChildGoneError, ChildProcess
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
        self._process = ChildProcess(_serve, options, name="motedge-bench")
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
        self._process.close(_PATIENCE_S if sys.exc_info()[0] is None else 0.0)

    def _call(self, name: str, *args: Any) -> Any:
        with _as_worker_gone():
            self._process.send((name, args))
        return self._received()

    def _received(self) -> Any:
        with _as_worker_gone():
            kind, value = self._process.receive()
        if kind == _DONE:
            return value
        raise _raised(value)


@contextlib.contextmanager
def _as_worker_gone() -> Iterator[None]:
    try:
        yield
    except ChildGoneError as error:
        raise WorkerGoneError("the candidate's process has ended", got=error.got, why=error.why) from error


def _serve(theirs: Connection, options: ActingOptions) -> None:
    """The other process: opens, says so, and does what it is told until nothing more comes."""
    with contextlib.ExitStack() as opened:
        try:
            session = Session(open_acting(options))
            opened.callback(session.close)
        except Exception as error:  # noqa: BLE001 -- told to the first process
            theirs.send((_FAILED, _told(error)))
            return
        theirs.send((_DONE, None))
        while True:
            name, args = theirs.recv()
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
