"""One drive of a row, and what is kept of it."""

from __future__ import annotations

import numpy as np

from examples.train_small.closed_loop.rows import Row
from examples.train_small.drive.drive import drive
from examples.train_small.drive.drivers import Driver
from examples.train_small.drive.score import SETTLED_S, score
from examples.train_small.road.expert import LATERAL_M, RATE_HZ
from examples.train_small.road.simulator import Simulator


def drive_once(driver: Driver, simulator: Simulator, row: Row, seed: int, behaviour: str) -> dict[str, object]:
    """Drives, and gives what the journal keeps."""
    made = drive(driver, simulator, seed, row.instruction(behaviour), row.how)
    judged = score(made)
    settled = made.lateral[min(round(SETTLED_S * RATE_HZ), len(made.lateral) - 1) :]
    return {
        **vars(judged),
        # Mean distance from the line that was told, once settled; a car that is to stop has none
        "line_m": None if behaviour == "stop" else round(float(np.abs(settled - LATERAL_M[behaviour]).mean()), 4),
        "way_m": round(float(made.way[-1]), 2),
        "error_m": round(float(made.plan_error.mean()), 5),
        "plan_ms": [round(value, 3) for value in made.plan_ms.tolist()],
    }
