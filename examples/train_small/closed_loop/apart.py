"""Drives in several processes at once, each with a simulator and engines of its own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import Optional

from examples.train_small.closed_loop.drivers import BundleSpec, Drivers
from examples.train_small.closed_loop.one_drive import drive_once
from examples.train_small.closed_loop.rows import Row
from examples.train_small.road.simulator import Simulator

Job = tuple[Row, int, str]
# Drives that are handed out ahead, for each process: none waits for the next
_AHEAD = 2


def drive_apart(
    jobs: Iterable[Job], bundles: Mapping[str, BundleSpec], workers: int
) -> Iterator[tuple[Job, dict[str, object]]]:
    """Drives the jobs, and gives each as it is finished.

    Args:
        jobs: Row, seed and behaviour; taken as processes become free.
        bundles: As `Drivers`.
        workers: Processes.

    Raises:
        MotedgeError: as the first drive that failed.
    """
    left = iter(jobs)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (bundles,))
    running: dict[Future[dict[str, object]], Job] = {}
    try:
        while True:
            for job in islice(left, _AHEAD * workers - len(running)):
                running[pool.submit(_drive, *job)] = job
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), done.result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker:
    """What a process holds."""

    def __init__(self, bundles: Mapping[str, BundleSpec]) -> None:
        self.simulator, self.drivers = Simulator(), Drivers(bundles)


_worker: Optional[_Worker] = None


def _begin(bundles: Mapping[str, BundleSpec]) -> None:
    global _worker
    # Ctrl-C ends the parent, which then ends these
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = _Worker(bundles)


def _drive(row: Row, seed: int, behaviour: str) -> dict[str, object]:
    if _worker is None:
        raise RuntimeError("the process was not prepared")
    return drive_once(_worker.drivers.of(row), _worker.simulator, row, seed, behaviour)
