"""How far a driver's plans are from the expert's on held-out pictures: the error that needs no driving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.train_small.data.episode import record
from examples.train_small.drive.drive import plan_error
from examples.train_small.drive.drivers import Driver
from examples.train_small.road.instructions import BEHAVIOURS, CANONICAL
from examples.train_small.road.simulator import Simulator

# Roads that are kept for validation (decision 16); frames lie a second apart
FIRST_SEED, EPISODES, SECONDS = 100_000, 16, 4
_APART = 10


@dataclass(frozen=True)
class HeldOut:
    """Pictures of the disturbed expert's drives, and its clean plans from there."""

    # uint8 [n, 96, 96, 3]
    frames: NDArray[np.uint8]
    # For each behaviour, fp32 [n, 4, 16, 9]
    plans: NDArray[np.float32]


def record_held_out(simulator: Simulator, episodes: int = EPISODES) -> HeldOut:
    """Drives the expert over the first held-out roads and keeps a frame a second."""
    drives = [record(simulator, FIRST_SEED + number, SECONDS) for number in range(episodes)]
    return HeldOut(
        np.concatenate([one.frames[::_APART] for one in drives]),
        np.concatenate([one.plans_all[::_APART] for one in drives]),
    )


def open_loop_errors(driver: Driver, held_out: HeldOut, simulator: Simulator) -> list[float]:
    """Mean distance of a plan's places from the expert's over 1.6 s, m: each picture told each behaviour, [n * 4]."""
    return [
        round(plan_error(driver.plan(frame, CANONICAL[name], simulator, seed), plan), 5)
        for seed, (frame, plans) in enumerate(zip(held_out.frames, held_out.plans, strict=True))
        for name, plan in zip(BEHAVIOURS, plans, strict=True)
    ]
