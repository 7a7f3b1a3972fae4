"""Who measures: this process, processes on this machine, or machines (see ray_cluster). The numbers are the same.

Every worker computes with one thread: a product's last bits can depend on the number of threads, and single-threaded
workers side by side keep all cores busy.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from motedge.errors import HostError, UsageError
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
        before = set(multiprocessing.active_children())
        self._pool = concurrent.futures.ProcessPoolExecutor(
            jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(setup,)
        )
        self._before = before

    def run(self, tasks: Sequence[Task]) -> Iterator[Records]:
        """See Executor.

        Raises:
            HostError: a worker died.
        """
        try:
            futures = [self._pool.submit(_measure, task) for task in tasks]
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise HostError(
                "a worker process of the search died",
                why="most often the machine is out of memory; what was measured is kept",
                fix="run the same command again with fewer --jobs",
            ) from error

    def close(self) -> None:
        """Ends the processes, also in the middle of a task."""
        own = set(multiprocessing.active_children()) - self._before
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in own:
            process.terminate()


_worker: Any = None


def _begin(setup: WorkerSetup) -> None:
    global _worker
    # Ctrl-C goes to the whole process group; the search itself ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _worker = Worker(setup)


def _measure(task: Task) -> Records:
    records: Records = _worker.run(task)
    return records
