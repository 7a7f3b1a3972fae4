"""What several threads share of one process on a GPU: the ledger, the collector, the engine library's log."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from motedge.runtime.backends.tensorrt.log import make_logger
from motedge.runtime.cuda.graph import CAPTURES, GraphCapture
from motedge.runtime.cuda.ledger import Ledger


def test_the_ledger_of_many_threads_comes_out_even() -> None:
    ledger, begin = Ledger(), threading.Barrier(4)

    def work(number: int) -> None:
        begin.wait()
        for _ in range(2000):
            ledger.add("K and V", number + 1)
            ledger.remove("K and V", number + 1)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert not ledger.as_dict() and not ledger.total_bytes


class Driver:
    """Records whether garbage is collected while a capture is ended."""

    def __init__(self) -> None:
        modes = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local")
        self.api = SimpleNamespace(CUstreamCaptureMode=modes)
        self.modes: list[Any] = []

    def call(self, name: str, *arguments: Any, **_: Any) -> Any:
        self.modes += arguments[1:] if name == "cuStreamBeginCapture" else ()
        return {"cuStreamEndCapture": 1, "cuGraphGetNodes": (None, 1), "cuGraphInstantiate": 2}.get(name)


def test_captures_wait_for_one_another_and_nothing_is_collected_meanwhile() -> None:
    driver, inside, leave = Driver(), threading.Event(), threading.Event()
    capture = GraphCapture(driver)  # type: ignore[arg-type]
    seen: list[tuple[int, bool]] = []

    def enqueue() -> None:
        inside.set()
        assert leave.wait(10)
        seen.append((1, gc.isenabled()))
        # What a step of a reasoner captures within its own turn
        with CAPTURES:
            pass

    first = threading.Thread(target=lambda: capture.capture(1, enqueue))
    second = threading.Thread(target=lambda: capture.capture(2, lambda: seen.append((2, gc.isenabled()))))
    assert gc.isenabled()
    first.start()
    assert inside.wait(10)
    second.start()
    while len(CAPTURES._waiting) < 2:
        time.sleep(1e-4)
    assert not gc.isenabled() and not seen
    leave.set()
    first.join()
    second.join()
    assert seen == [(1, False), (2, False)] and gc.isenabled()
    # The other thread's calls go on during a capture
    assert driver.modes == ["thread local"] * 2


def test_a_thread_reads_its_own_lines_of_the_log() -> None:
    levels = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)
    logger = make_logger(SimpleNamespace(ILogger=type("ILogger", (), {"Severity": levels})))
    with ThreadPoolExecutor(1) as other:
        assert not logger.errors and not other.submit(lambda: list(logger.errors)).result()
        other.submit(logger.log, levels.ERROR, "theirs").result()
        logger.log(levels.ERROR, "ours")
        assert logger.errors == ["ours"] and other.submit(lambda: list(logger.errors)).result() == ["theirs"]
        logger.errors.clear()
        assert other.submit(lambda: list(logger.errors)).result() == ["theirs"]
        # A thread of the library's own speaks to everybody
        thread = threading.Thread(target=logger.log, args=(levels.ERROR, "out of memory"))
        thread.start()
        thread.join()
        assert logger.errors == ["out of memory"]
        assert other.submit(lambda: list(logger.errors)).result() == ["theirs", "out of memory"]
