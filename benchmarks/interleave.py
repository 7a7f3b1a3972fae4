"""Measures several ways of doing the same work in turn, so that a disturbance of the machine meets all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from conditions import machine_cpu_s


def nothing() -> None:
    """Nothing to prepare."""


@dataclass(frozen=True)
class Way:
    """One way of doing the work."""

    # Timed
    run: Callable[[], Any]
    # Not timed, before each run
    prepare: Callable[[], None] = nothing


@dataclass
class Measured:
    """What one way took, one entry a round."""

    wall_ms: list[float] = field(default_factory=list)
    # Of all threads of the process. On a shared machine steadier than wall time, though a waiting pool spins too
    cpu_ms: list[float] = field(default_factory=list)
    # Of all other processes at the same time; empty where the system does not tell
    others_cpu_ms: list[float] = field(default_factory=list)
    # Of the last round
    result: Any = None
    # Stage -> its time in each round, where the way keeps such accounts
    parts_ms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def median_ms(self) -> float:
        """Median of the wall times."""
        return statistics.median(self.wall_ms)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: median and spread of the wall time, median CPU times, median of each part; ms."""
        row: dict[str, Any] = {
            "median_ms": round(self.median_ms, 3),
            "min_ms": round(min(self.wall_ms), 3),
            "max_ms": round(max(self.wall_ms), 3),
            "n": len(self.wall_ms),
            "cpu_ms": round(statistics.median(self.cpu_ms), 3),
        }
        if self.others_cpu_ms:
            row["others_cpu_ms"] = round(statistics.median(self.others_cpu_ms), 3)
        if self.parts_ms:
            row["parts_ms"] = {name: round(statistics.median(values), 3) for name, values in self.parts_ms.items()}
        return row


def measure(
    ways: Mapping[str, Way],
    rounds: int,
    *,
    warmup: Sequence[str] = (),
    parts: Callable[[Any], Mapping[str, float]] = lambda result: {},
    report: Optional[Callable[[str, float], None]] = None,
) -> dict[str, Measured]:
    """Runs every way once a round, in the given order in even rounds and backwards in odd ones.

    Args:
        ways: name -> way.
        rounds: at least 1.
        warmup: ways that are run once beforehand, not counted.
        parts: the stages' times in ms that a result tells.
        report: called with a name and its wall time in ms after each run.

    Returns:
        name -> times of all rounds and the last result.
    """
    for name in warmup:
        ways[name].prepare()
        ways[name].run()
    measured = {name: Measured() for name in ways}
    order = list(ways)
    for number in range(rounds):
        for name in order if number % 2 == 0 else reversed(order):
            entry = measured[name]
            _once(ways[name], entry)
            for part, value_ms in parts(entry.result).items():
                entry.parts_ms.setdefault(part, []).append(value_ms)
            if report is not None:
                report(name, entry.wall_ms[-1])
    return measured


def _once(way: Way, entry: Measured) -> None:
    way.prepare()
    # No collection of one way's garbage in another's time
    gc.collect()
    gc.disable()
    try:
        machine, cpu, wall = machine_cpu_s(), time.process_time(), time.perf_counter()
        entry.result = way.run()
        entry.wall_ms.append((time.perf_counter() - wall) * 1e3)
        entry.cpu_ms.append((time.process_time() - cpu) * 1e3)
        after = machine_cpu_s()
        if machine is not None and after is not None:
            entry.others_cpu_ms.append(max(0.0, (after - machine) * 1e3 - entry.cpu_ms[-1]))
    finally:
        gc.enable()
