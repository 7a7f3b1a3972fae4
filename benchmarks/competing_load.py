"""Other work on the same machine: what `deadline_load.py` measures deadlines under. Also a program, the load itself.

    python benchmarks/competing_load.py cpu          one busy core, until its standard input closes
    python benchmarks/competing_load.py gpu          matrix products on the GPU, likewise

Prints "ready" once it runs and, in the end, one JSON line: rounds done and seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from motedge.errors import HostError, MotedgeError

# none; a busy process on every core; a process of its own on the GPU; a stream of its own in this process
LOADS = ("none", "cpu", "gpu-process", "gpu-stream")
# Side of the square fp16 matrices: about 2 ms a product on an H100, as a large kernel of a perception network
MATRIX = 8192
# Products in flight, so that the GPU never waits for the host
_IN_FLIGHT = 8
_READY_S = 120.0


@contextmanager
def competing_load(kind: str, matrix: int = MATRIX) -> Iterator[dict[str, Any]]:
    """Runs a load as long as the block does; the dict is filled in at its end: rounds a second, all processes.

    Raises:
        HostError: the load did not start.
    """
    found: dict[str, Any] = {}
    if kind == "none":
        yield found
    elif kind == "gpu-stream":
        with _in_thread(matrix, found):
            yield found
    else:
        processes = len(os.sched_getaffinity(0)) if kind == "cpu" else 1
        with ExitStack() as started:
            parts = [started.enter_context(_in_process(kind.partition("-")[0], matrix)) for _ in range(processes)]
            yield found
        found["rounds_per_s"] = round(sum(part["rounds"] / part["s"] for part in parts), 2)


@contextmanager
def _in_process(kind: str, matrix: int) -> Iterator[dict[str, Any]]:
    command = [sys.executable, str(Path(__file__).resolve()), kind, str(matrix)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if child.stdin is None or child.stdout is None:
        raise HostError("the competing load has no pipes")
    told: dict[str, Any] = {}
    # A load that hangs before it is ready must not hang the measurement
    timer = threading.Timer(_READY_S, child.kill)
    timer.start()
    try:
        ready = child.stdout.readline().strip()
        timer.cancel()
        if ready != "ready":
            raise HostError("the competing load did not start", expected="ready", got=ready or "nothing")
        yield told
        child.stdin.close()
        told.update(json.loads(child.stdout.readline()))
    finally:
        timer.cancel()
        if child.poll() is None:
            child.terminate()
        child.wait()
        child.stdout.close()


@contextmanager
def _in_thread(matrix: int, found: dict[str, Any]) -> Iterator[None]:
    """The GPU's load on a stream of this process, at the lowest priority."""
    stop, ready = threading.Event(), threading.Event()
    told: dict[str, Any] = {}

    # Here, where its errors are seen
    once = _products(matrix)

    def work() -> None:
        told.update(_repeat(once, stop.is_set, ready.set))

    thread = threading.Thread(target=work, name="competing-load", daemon=True)
    thread.start()
    if not ready.wait(_READY_S):
        raise HostError("the competing load did not start", expected=f"within {_READY_S:g} s")
    try:
        yield
    finally:
        stop.set()
        thread.join()
    found["rounds_per_s"] = round(told["rounds"] / told["s"], 2)


def _repeat(once: Callable[[], None], stopped: Callable[[], bool], ready: Callable[[], None]) -> dict[str, Any]:
    once()
    ready()
    began, rounds = time.perf_counter(), 0
    while not stopped():
        once()
        rounds += 1
    return {"rounds": rounds, "s": time.perf_counter() - began}


def _products(matrix: int) -> Callable[[], None]:
    """A round: one matrix product on the GPU, a few ahead of the host. Needs torch."""
    import torch

    if not torch.cuda.is_available():
        raise HostError("there is no GPU to load", fix="leave out the loads gpu-process and gpu-stream")
    # 0 is the lowest priority that torch gives
    stream = torch.cuda.Stream(priority=0)
    left = torch.randn(matrix, matrix, device="cuda", dtype=torch.float16)
    out = torch.empty_like(left)
    torch.cuda.synchronize()
    events = [torch.cuda.Event() for _ in range(_IN_FLIGHT)]
    count = 0

    def once() -> None:
        nonlocal count
        event = events[count % _IN_FLIGHT]
        event.synchronize()
        with torch.cuda.stream(stream):
            torch.mm(left, left, out=out)
        event.record(stream)
        count += 1

    return once


def _busy() -> None:
    """A round on a CPU: some milliseconds of arithmetic."""
    sum(number * number for number in range(50_000))


def _main(arguments: list[str]) -> None:
    stop = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        once = _busy if arguments[0] == "cpu" else _products(int(arguments[1]) if len(arguments) > 1 else MATRIX)
    except MotedgeError as error:
        sys.exit(str(error))
    print(json.dumps(_repeat(once, stop.is_set, lambda: print("ready", flush=True))), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
