"""Who measures: this process, processes on this machine, or machines (see ray_cluster). The numbers are the same.

Every worker computes with one thread: a product's last bits can depend on the number of threads, and single-threaded
workers side by side keep all cores busy.
"""

from __future__ import annotations

import contextlib
import pickle
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Protocol

import torch

from motedge.child_process import ChildGoneError, ChildProcess
from motedge.errors import HostError, InternalError, UsageError
from motedge.quant.sensitivity.tasks import Records, Task
from motedge.quant.sensitivity.worker import Worker, WorkerSetup


class Executor(Protocol):
    """Measures tasks."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Records]:
        """Records of each task, as they come, in any order."""
        ...

    def close(self) -> None:
        """Ends the workers, at once."""
        ...


def open_executor(setup: WorkerSetup, jobs: int) -> Executor:
    """Workers on this machine; one works in this process.

    Raises:
        UsageError: fewer than one.
    """
    if jobs < 1:
        raise UsageError("the number of jobs is wrong", expected="at least 1", got=jobs)
    return InProcess(setup) if jobs == 1 else ProcessPool(setup, jobs)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch computes with one thread meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class InProcess:
    """One worker, here."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._worker: Worker | None = None

    def run(self, tasks: Sequence[Task]) -> Iterator[Records]:
        """See Executor."""
        for task in tasks:
            with one_thread():
                self._worker = self._worker or Worker(self._setup)
                records = self._worker.run(task)
            yield records

    def close(self) -> None:
        """Drops the towers."""
        self._worker = None


class ProcessPool:
    """Workers in processes of their own. Towers in their stored type are mapped files: their memory is shared."""

    def __init__(self, setup: WorkerSetup, jobs: int) -> None:
        self._setup = setup
        # All at once: each takes seconds until it is up, and says so then
        self._children = [ChildProcess(_serve, name="motedge-search") for _ in range(jobs)]
        self._idle: list[ChildProcess] = []

    def run(self, tasks: Sequence[Task]) -> Iterator[Records]:
        """See Executor.

        Raises:
            HostError: a worker died.
        """
        try:
            yield from self._run(deque(tasks))
        except ChildGoneError as error:
            raise HostError(
                "a worker process of the search died",
                got=error.got,
                why="most often the machine is out of memory; what was measured is kept",
                fix="run the same command again with fewer --jobs",
            ) from error

    def close(self) -> None:
        """Ends the processes, also in the middle of a task."""
        for child in self._children:
            child.close()

    def _run(self, waiting: deque[Task]) -> Iterator[Records]:
        left = len(waiting)
        idle, self._idle = self._idle, []
        for child in idle:
            self._occupy(child, waiting)
        children = {child.connection: child for child in self._children}
        while left:
            for connection in wait(list(children)):
                child = children[connection]  # type: ignore[index]
                answer = child.receive()
                if isinstance(answer, Exception):
                    raise answer
                if answer is None:
                    child.send(self._setup)
                self._occupy(child, waiting)
                if answer is not None:
                    left -= 1
                    yield answer

    def _occupy(self, child: ChildProcess, waiting: deque[Task]) -> None:
        if waiting:
            child.send(waiting.popleft())
        else:
            self._idle.append(child)


def _serve(theirs: Connection) -> None:
    """The other process: says that it is up, takes its setup, then measures task after task."""
    torch.set_num_threads(1)
    theirs.send(None)
    worker: Worker | None = None
    setup: WorkerSetup = theirs.recv()
    while True:
        task: Task = theirs.recv()
        try:
            worker = worker or Worker(setup)
            answer: Records | Exception = worker.run(task)
        except Exception as error:  # noqa: BLE001 -- raised in the first process
            answer = _portable(error)
        theirs.send(answer)


def _portable(error: Exception) -> Exception:
    """The error itself where it can be sent, else its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 -- whatever it is that keeps it here
        return InternalError(f"{type(error).__name__}: {error}")
    return error
