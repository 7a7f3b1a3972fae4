"""Every promise of motedge.runtime.cuda on a real GPU, through each provider that is installed: a line of JSON a check.

Python 3.9, numpy and cuda-bindings (and pycuda, if it is to be tried) are enough. From the repository's root:

    PYTHONPATH=.:tests/support python3 tests/support/cuda_on_gpu.py [pycuda] [cuda-bindings]

What breaks a process, a crashing kernel and a fork, runs in children of it: `... cuda_on_gpu.py --alone NAME PROVIDER`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda_kernels_ptx import PTX

from motedge.errors import HostError
from motedge.runtime.cuda.choose import choose_provider, has_bindings, open_cuda, pycuda_problem
from motedge.runtime.cuda.errors import CaptureError, CudaError, OutOfDeviceMemoryError, StickyCudaError
from motedge.runtime.cuda.provided import ProvidedCuda
from motedge.runtime.cuda.recover import reset_context

# About 50 ms at 1 to 2 GHz
SPIN_CYCLES = 80_000_000
COUNT = 1000


class Bench:
    """An open Cuda with a stream, a block of COUNT floats, its staging, and the kernels."""

    def __init__(self, provider: str) -> None:
        self.cuda = open_cuda(provider=provider)
        with self.cuda.current():
            self.stream = self.cuda.stream()
            self.block = self.cuda.allocate(4 * COUNT, "test")
            self.staging = self.cuda.pinned((COUNT,), np.float32)
            self.back = self.cuda.pinned((COUNT,), np.float32)
            self.add = self.cuda.kernel(PTX, "add_value")
            self.spin = self.cuda.kernel(PTX, "spin")

    def enqueue_sum(self, value: float) -> None:
        """back = staging + value, through the block."""
        pointer = self.block.pointer
        self.cuda.copy(pointer, self.staging.ctypes.data, 4 * COUNT, self.stream)
        self.enqueue_add(value)
        self.cuda.copy(self.back.ctypes.data, pointer, 4 * COUNT, self.stream)

    def enqueue_add(self, value: float) -> None:
        """block += value."""
        arguments = [np.uint64(self.block.pointer), np.uint32(COUNT), np.float32(value)]
        self.cuda.launch(self.add, -(-COUNT // 256), 256, arguments, self.stream)

    def wait(self) -> None:
        """Enqueues a wait of tens of milliseconds."""
        self.cuda.launch(self.spin, 1, 1, [np.int64(SPIN_CYCLES)], self.stream)

    def works(self) -> bool:
        """Whether the whole of it computes."""
        self.staging[:] = np.arange(COUNT)
        self.enqueue_sum(3)
        self.stream.synchronize()
        return bool((self.back == np.arange(COUNT) + 3).all())


def check_facts(bench: Bench) -> dict[str, Any]:
    facts = bench.cuda.facts
    free, total = bench.cuda.memory_info()
    assert facts.name and facts.total_memory_bytes > 0 and facts.driver_cuda >= (12, 0), facts
    assert 0 < free <= total, (free, total)
    return {"facts": str(facts), "choice": bench.cuda.choice, "free": free}


def check_copies_and_kernels(bench: Bench) -> dict[str, Any]:
    assert bench.block.pointer % 256 == 0
    assert (bench.cuda.pinned((3, 5), np.float16) == 0).all()
    assert bench.works()
    bench.cuda.zero(bench.block.pointer, 4 * COUNT, bench.stream)
    bench.cuda.copy(bench.back.ctypes.data, bench.block.pointer, 4 * COUNT, bench.stream)
    bench.stream.synchronize()
    assert not bench.back.any()
    return {"ledger": bench.cuda.ledger}


def check_rows(bench: Bench) -> dict[str, Any]:
    source = bench.cuda.pinned((6, 16), np.uint8)
    source[:] = np.arange(96).reshape(6, 16)
    target = bench.cuda.allocate(6 * 512, "rows")
    back = bench.cuda.pinned((6, 512), np.uint8)
    bench.cuda.zero(target.pointer, 6 * 512, bench.stream)
    bench.cuda.copy_rows(target.pointer, 512, source.ctypes.data, 16, 10, 6, bench.stream)
    bench.cuda.copy(back.ctypes.data, target.pointer, 6 * 512, bench.stream)
    bench.stream.synchronize()
    assert (back[:, :10] == source[:, :10]).all()
    assert not back[:, 10:].any()
    target.free()
    return {}


def check_events(bench: Bench) -> dict[str, Any]:
    start, end, other = bench.cuda.event(), bench.cuda.event(), bench.cuda.stream()
    start.record(bench.stream)
    bench.wait()
    bench.enqueue_sum(1)
    end.record(bench.stream)
    early = end.passed
    other.wait(end)
    bench.cuda.zero(bench.block.pointer, 4, other)
    end.synchronize()
    assert end.passed
    other.synchronize()
    elapsed_ms = end.elapsed_ms(start)
    assert elapsed_ms > 0
    return {"passed_early": early, "elapsed_ms": elapsed_ms}


def check_priorities(bench: Bench) -> dict[str, Any]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        numbers = {name: bench.cuda.stream(name).numeric_priority for name in ("high", "normal", "low")}
    assert numbers["high"] <= numbers["normal"] <= numbers["low"], numbers
    if bench.cuda.provider == "cuda-bindings":
        assert numbers["high"] < 0 and not said, numbers
    else:
        assert len(said) == 1, said
    return {"numbers": numbers}


def check_foreign_streams(bench: Bench) -> dict[str, Any]:
    other = bench.cuda.stream()
    bench.wait()
    bench.cuda.zero(bench.block.pointer, 4 * COUNT, bench.stream)
    bench.enqueue_add(9)
    for producer in (bench.stream.handle, 1, 2):
        bench.cuda.wait_for_producer(other, producer)
    bench.cuda.copy(bench.back.ctypes.data, bench.block.pointer, 4 * COUNT, other)
    other.synchronize()
    assert (bench.back == 9).all(), bench.back[:4]
    return {}


def check_capture(bench: Bench) -> dict[str, Any]:
    bench.staging[:] = 1
    graph = bench.cuda.capture(bench.stream, lambda: bench.enqueue_sum(2))
    bench.stream.synchronize()
    for value in (5, 7):
        bench.staging[:] = value
        graph.launch(bench.stream)
        bench.stream.synchronize()
        assert (bench.back == value + 2).all(), bench.back[:4]
    started = time.perf_counter()
    for _ in range(200):
        graph.launch(bench.stream)
    launch_us = (time.perf_counter() - started) / 200 * 1e6
    bench.stream.synchronize()
    graph.close()
    graph.close()
    _refused(CudaError, lambda: graph.launch(bench.stream))
    return {"launch_us": round(launch_us, 2)}


def check_joined_streams_in_a_capture(bench: Bench) -> dict[str, Any]:
    side, fork, join = bench.cuda.stream(), bench.cuda.event(), bench.cuda.event()

    def enqueue() -> None:
        fork.record(bench.stream)
        side.wait(fork)
        bench.cuda.copy(bench.block.pointer, bench.staging.ctypes.data, 4 * COUNT, side)
        join.record(side)
        bench.stream.wait(join)
        bench.enqueue_add(4)
        bench.cuda.copy(bench.back.ctypes.data, bench.block.pointer, 4 * COUNT, bench.stream)

    graph = bench.cuda.capture(bench.stream, enqueue)
    bench.staging[:] = 6
    graph.launch(bench.stream)
    bench.stream.synchronize()
    assert (bench.back == 10).all()
    return {}


def check_lost_captures(bench: Bench) -> dict[str, Any]:
    said = {}

    def allocates() -> None:
        bench.enqueue_sum(1)
        bench.cuda.allocate(1 << 20, "in a capture")

    def hides_it() -> None:
        with contextlib.suppress(CudaError):
            bench.stream.synchronize()
        bench.enqueue_sum(1)

    def fails() -> None:
        bench.enqueue_sum(1)
        raise ZeroDivisionError

    before = bench.cuda.ledger
    for name, enqueue in (("allocates", allocates), ("hides it", hides_it), ("nothing", lambda: None)):
        said[name] = _refused(CaptureError, lambda enqueue=enqueue: bench.cuda.capture(bench.stream, enqueue))
        assert bench.works(), name
    _refused(ZeroDivisionError, lambda: bench.cuda.capture(bench.stream, fails))
    assert bench.works()
    assert gc.isenabled()
    assert bench.cuda.ledger == before
    return {"said": said}


def check_out_of_memory(bench: Bench) -> dict[str, Any]:
    free, total = bench.cuda.memory_info()
    before = bench.cuda.ledger
    said = _refused(OutOfDeviceMemoryError, lambda: bench.cuda.allocate(total * 2, "a dream"))
    assert "a dream" in said and "test 4,000" in said, said
    assert bench.cuda.ledger == before
    assert bench.works()
    return {"said": said, "free": free}


def check_no_growth(bench: Bench) -> dict[str, Any]:
    before = bench.cuda.memory_info()[0]
    for number in range(10_000):
        bench.cuda.allocate(4096 + 256 * (number % 7), "churn").free()
    after = bench.cuda.memory_info()[0]
    assert "churn" not in bench.cuda.ledger
    assert abs(before - after) < 16 << 20, (before, after)
    return {"free_before": before, "free_after": after}


def check_other_threads(bench: Bench) -> dict[str, Any]:
    found: list[bool] = []

    def work() -> None:
        with bench.cuda.current():
            found.append(bench.works())
            bench.cuda.allocate(256, "of a thread").free()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]
    return {}


def check_bad_kernels(bench: Bench) -> dict[str, Any]:
    said = [
        _refused(CudaError, lambda: bench.cuda.kernel(b"no module", "add_value")),
        _refused(CudaError, lambda: bench.cuda.kernel(PTX, "subtract_value")),
        _refused(CudaError, lambda: bench.cuda.launch(bench.add, 1, 4096, [np.uint64(0)] * 3, bench.stream)),
        _refused(CudaError, lambda: bench.cuda.launch(bench.add, 1, 1, [1, 2, 3], bench.stream)),
    ]
    assert bench.works()
    return {"said": said}


def check_close(bench: Bench) -> dict[str, Any]:
    provider = bench.cuda.provider
    cuda = open_cuda(provider=provider)
    with cuda.current():
        stream, block = cuda.stream(), cuda.allocate(1 << 20, "left")
        cuda.pinned((16,), np.float32)
        cuda.event().record(stream)
        graph = cuda.capture(stream, lambda: cuda.zero(block.pointer, 64, stream))
    cuda.close()
    cuda.close()
    block.free()
    graph.close()
    assert cuda.ledger == {}
    _refused(CudaError, stream.synchronize)
    _refused(CudaError, lambda: cuda.current().__enter__())
    inside = open_cuda(provider=provider)
    with inside.current():
        inside.allocate(256, "closed inside")
        inside.close()
    assert bench.works()
    return {}


def alone_sticky(provider: str) -> dict[str, Any]:
    bench = Bench(provider)
    with bench.cuda.current():
        crash = bench.cuda.kernel(PTX, "write_null")
        said = _refused(StickyCudaError, lambda: _crash(bench, crash))
        again = _refused(StickyCudaError, lambda: bench.cuda.allocate(256, "after a crash"))
    bench.cuda.close()
    assert bench.cuda.ledger == {}
    # A driver may refuse a process that has crashed for good (the H200's with CUDA 13 does): then it must say so
    try:
        reset_context(0)
        rebuilt = Bench(provider)
    except CudaError as error:
        return {"said": said, "again": again, "rebuilt": False, "why": str(error)}
    with rebuilt.cuda.current():
        assert rebuilt.works()
    rebuilt.cuda.close()
    return {"said": said, "again": again, "rebuilt": True}


def _crash(bench: Bench, kernel: Any) -> None:
    bench.cuda.launch(kernel, 1, 1, [np.uint64(0)], bench.stream)
    bench.stream.synchronize()


def alone_fork(provider: str) -> dict[str, Any]:
    bench = Bench(provider)
    with warnings.catch_warnings():
        # Python 3.12 warns of threads, which CUDA has; what becomes of CUDA in the child is what is tried here
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            with bench.cuda.current():
                os._exit(1)
        except HostError as error:
            told = "forked" in str(error)
            bench.cuda.close()
            del bench
            gc.collect()
            os._exit(0 if told else 2)
        os._exit(3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status
    with bench.cuda.current():
        assert bench.works()
    bench.cuda.close()
    return {}


def alone_exit(provider: str) -> dict[str, Any]:
    # Nothing is closed here: the end of the process must do it, without a word
    bench = Bench(provider)
    with bench.cuda.current():
        assert bench.works()
    globals()["_left"] = bench
    return {}


ALONE: dict[str, Callable[[str], dict[str, Any]]] = {
    "sticky": alone_sticky,
    "fork": alone_fork,
    "exit": alone_exit,
}
CHECKS: list[Callable[[Bench], dict[str, Any]]] = [
    check_facts,
    check_copies_and_kernels,
    check_rows,
    check_events,
    check_priorities,
    check_foreign_streams,
    check_capture,
    check_joined_streams_in_a_capture,
    check_lost_captures,
    check_out_of_memory,
    check_no_growth,
    check_other_threads,
    check_bad_kernels,
    check_close,
]


def _refused(kind: type[BaseException], call: Callable[[], Any]) -> str:
    """What the error said. AssertionError if there was none, or another."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def _say(check: str, run: Callable[[], dict[str, Any]], **context: Any) -> bool:
    started = time.perf_counter()
    try:
        entry = {"passed": True, **run()}
    except Exception as error:  # noqa: BLE001 - a check that breaks must not keep the others from running
        last = traceback.extract_tb(error.__traceback__)[-1]
        entry = {"passed": False, "error": f"{type(error).__name__}: {error}", "line": last.lineno}
    entry = {"check": check, **context, **entry, "seconds": round(time.perf_counter() - started, 3)}
    sys.stdout.write(json.dumps(entry, default=str) + "\n")
    sys.stdout.flush()
    return bool(entry["passed"])


def _in_child(name: str, provider: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--alone", name, provider]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}: {(done.stdout + done.stderr)[-1500:]}"
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    # A warning of a library about a failed clean-up is a failure of ours
    found["stderr"] = done.stderr.strip()[-300:]
    assert not found["stderr"] or name == "sticky", found["stderr"]
    return found


def run_provider(provider: str) -> bool:
    """All checks through one provider."""
    benches: list[Bench] = []
    if not _say("open", lambda: benches.append(Bench(provider)) or {}, provider=provider):
        return False
    bench, passed = benches[0], True
    with bench.cuda.current():
        for check in CHECKS:
            name = check.__name__[len("check_") :].replace("_", " ")
            passed &= _say(name, lambda check=check: check(bench), provider=provider)
    passed &= _say("close all", lambda: _closed(bench.cuda), provider=provider)
    for name in ALONE:
        passed &= _say(name, lambda name=name: _in_child(name, provider), provider=provider)
    return passed


def _closed(cuda: ProvidedCuda) -> dict[str, Any]:
    cuda.close()
    assert cuda.ledger == {}
    return {}


def main(arguments: list[str]) -> int:
    """Runs all checks; 0 when each passed."""
    if arguments[:1] == ["--alone"]:
        return 0 if _say(arguments[1], lambda: ALONE[arguments[1]](arguments[2])) else 1
    providers = arguments or [
        name
        for name, lacking in (
            ("cuda-bindings", None if has_bindings() else "not installed"),
            ("pycuda", pycuda_problem()),
        )
        if lacking is None
    ]
    _say("choice", lambda: {"chosen": choose_provider(), "with priorities": choose_provider(priorities=True)})
    results = [run_provider(provider) for provider in providers]
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
