"""The real thread: waiting, errors, closing, forks."""

from __future__ import annotations

import math
import os
import threading
import time

import pytest

from motedge.errors import HostError
from motedge.runtime.deadline.clock import MonotonicClock
from motedge.runtime.deadline.worker import ThreadWorker

CLOCK = MonotonicClock()


def test_all_work_runs_in_one_other_thread() -> None:
    worker = ThreadWorker(CLOCK, "tick-test")
    jobs = [worker.submit(threading.current_thread) for _ in range(3)]
    assert all(worker.wait(job, math.inf) for job in jobs)
    (thread,) = {job.result() for job in jobs}
    assert thread is not threading.current_thread() and thread.name == "tick-test" and thread.daemon
    worker.close(5.0)
    worker.close(5.0)
    assert not thread.is_alive()
    with pytest.raises(HostError, match="closed"):
        worker.submit(int)


def test_waiting_ends_when_the_time_has_come() -> None:
    worker, release = ThreadWorker(CLOCK), threading.Event()
    job = worker.submit(release.wait)
    began = time.monotonic()
    assert not worker.wait(job, began + 0.05)
    assert 0.05 <= time.monotonic() - began < 5
    assert not worker.wait(job, began - 1)
    release.set()
    assert worker.wait(job, math.inf) and job.result() is True
    worker.close(5.0)


@pytest.mark.parametrize("kind", [ValueError, TimeoutError, SystemExit, KeyboardInterrupt])
def test_errors_end_up_in_the_job(kind: type[BaseException]) -> None:
    worker = ThreadWorker(CLOCK)

    def fail() -> None:
        raise kind("no")

    job = worker.submit(fail)
    assert worker.wait(job, math.inf)
    assert isinstance(job.exception(), kind)
    after = worker.submit(lambda: 5)
    assert worker.wait(after, math.inf) and after.result() == 5
    worker.close(5.0)


def test_closing_under_work_that_does_not_end() -> None:
    worker, release = ThreadWorker(CLOCK), threading.Event()
    job = worker.submit(release.wait)
    with pytest.raises(HostError, match=r"still running(.|\n)*within 0\.05 s"):
        worker.close(0.05)
    release.set()
    worker.close(5.0)
    assert job.done()


def test_closing_without_any_work() -> None:
    ThreadWorker(CLOCK).close(0.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told() -> None:
    worker = ThreadWorker(CLOCK)
    worker.wait(worker.submit(int), math.inf)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            worker.submit(int)
        except HostError as error:
            code = 0 if "forked" in str(error) else 2
        finally:
            # Nothing of the parent's may run here, pytest least of all
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    worker.close(5.0)
