"""Drives the rows, road by road over all rows, so that what disturbs the machine meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

from examples.train_small.closed_loop.apart import Job, drive_apart
from examples.train_small.closed_loop.drivers import Drivers
from examples.train_small.closed_loop.journal import Journal
from examples.train_small.closed_loop.one_drive import drive_once
from examples.train_small.closed_loop.open_loop import HeldOut, open_loop_errors, record_held_out
from examples.train_small.closed_loop.rows import EXPERT, Row, models_of
from examples.train_small.road.instructions import BEHAVIOURS
from examples.train_small.road.simulator import Simulator


def measure(
    rows: Sequence[Row],
    drivers: Drivers,
    journal: Journal,
    budget_s: Optional[float] = None,
    report: Callable[[str], None] = lambda text: None,
    workers: int = 1,
) -> bool:
    """Drives what the journal lacks.

    Args:
        rows: In the order of driving.
        drivers: Who drives.
        journal: Is added to.
        budget_s: Begins no drive later than this; None: until all is driven.
        report: Is told a line a road.
        workers: Processes that drive at the same time, each with engines of its own.

    Returns:
        Whether all is driven.
    """
    until = None if budget_s is None else time.monotonic() + budget_s
    left = _left(rows, journal, until, report)
    simulator, ready = Simulator(), {row.id: drivers.of(row) for row in rows}
    try:
        _measure_open_loop(rows, drivers, journal, simulator)
        if workers == 1:
            for row, seed, behaviour in left:
                found = drive_once(ready[row.id], simulator, row, seed, behaviour)
                journal.add_drive(row.id, seed, behaviour, found)
    finally:
        simulator.close()
    if workers > 1:
        for (row, seed, behaviour), found in drive_apart(left, drivers.bundles, workers):
            journal.add_drive(row.id, seed, behaviour, found)
    return all((row.id, *drive) in journal.drives for row in rows for drive in row.drives())


def _left(
    rows: Sequence[Row], journal: Journal, until: Optional[float], report: Callable[[str], None]
) -> Iterator[Job]:
    """What is not driven yet, road by road, as long as there is time."""
    roads = max(row.seeds for row in rows)
    for number in range(roads):
        for row in rows:
            for seed, behaviour in row.drives()[number * len(BEHAVIOURS) : (number + 1) * len(BEHAVIOURS)]:
                if until is not None and time.monotonic() > until:
                    return
                if (row.id, seed, behaviour) not in journal.drives:
                    yield row, seed, behaviour
        report(f"{number + 1} roads of {roads}: {len(journal.drives)} drives")


def _measure_open_loop(rows: Sequence[Row], drivers: Drivers, journal: Journal, simulator: Simulator) -> None:
    held_out: Optional[HeldOut] = None
    for model, row in models_of(rows).items():
        # The expert is what the others are held against
        if row.driver != EXPERT and model not in journal.open_loop:
            held_out = held_out or record_held_out(simulator)
            journal.add_open_loop(model, open_loop_errors(drivers.of(row), held_out, simulator))
