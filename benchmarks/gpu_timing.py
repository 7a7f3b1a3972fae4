"""Times of work that is enqueued on one CUDA stream, by the GPU's own clock, several ways in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

# Enqueues one run of the work
Enqueue = Callable[[], object]


class StreamClock:
    """Measures on one stream. On a CPU (dry runs), by the host's clock."""

    def __init__(self, device: str, handle: int | None = None) -> None:
        """`device`: "cuda" or "cpu". `handle`: CUstream as a number; None: a stream of its own."""
        self._stream: Any = None
        if device == "cuda":
            self._stream = torch.cuda.Stream() if handle is None else torch.cuda.ExternalStream(handle)

    def run(self, enqueue: Enqueue) -> object:
        """One run, waited for; its result."""
        if self._stream is None:
            return enqueue()
        # Inputs may have been made on another stream
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            result = enqueue()
        self._stream.synchronize()
        return result

    def ms(self, enqueue: Enqueue, repeats: int) -> float:
        """Mean of `repeats` runs behind one another, in ms."""
        if self._stream is None:
            start = time.perf_counter()
            for _ in range(repeats):
                enqueue()
            return (time.perf_counter() - start) * 1e3 / repeats
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(self._stream):
            first.record(self._stream)
            for _ in range(repeats):
                enqueue()
            last.record(self._stream)
        last.synchronize()
        return float(first.elapsed_time(last)) / repeats

    def measure(self, ways: Mapping[str, Enqueue], rounds: int, repeats: int = 3) -> dict[str, dict[str, Any]]:
        """Every way once a round, backwards in odd rounds; each is run twice beforehand, not counted.

        Returns:
            name -> median, minimum and maximum over the rounds in ms, how many rounds, and runs a round.
        """
        for enqueue in ways.values():
            self.run(enqueue)
            self.run(enqueue)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in list(ways) if number % 2 == 0 else list(reversed(ways)):
                taken[name].append(self.ms(ways[name], repeats))
        return {name: {**spread_of(values), "repeats": repeats} for name, values in taken.items()}


def spread_of(values_ms: list[float]) -> dict[str, Any]:
    """Median, minimum, maximum and count, ms."""
    return {
        "median_ms": round(statistics.median(values_ms), 4),
        "min_ms": round(min(values_ms), 4),
        "max_ms": round(max(values_ms), 4),
        "n": len(values_ms),
    }


def relative_l2(got: Any, expected: Any) -> float:
    """Norm of the difference over the norm of what is expected, in fp64; torch tensors or arrays of one shape."""
    a, b = (torch.as_tensor(value).detach().double().flatten().cpu() for value in (got, expected))
    return float((a - b).norm() / b.norm())
