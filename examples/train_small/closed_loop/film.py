"""A film of a drive: the road from above, and the plan that is driven drawn over it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from examples.drive_remote.film import FilmMaker, frames_of
from examples.drive_remote.loop import Log, Moment
from examples.drive_remote.vehicle import Plan, Sight
from examples.film_file import check_format, write_film
from examples.train_small.drive.drive import Conditions, drive
from examples.train_small.drive.drivers import Driver
from examples.train_small.drive.tracker import ChunkTracker
from examples.train_small.road.camera import Image
from examples.train_small.road.expert import RATE_HZ
from examples.train_small.road.simulator import Simulator
from examples.train_small.road.track import Array
from motedge.errors import UsageError

SECONDS = 10.0


@dataclass
class FilmedDriver:
    """A driver, and what it planned from where."""

    driver: Driver
    log: Log = field(default_factory=Log)

    def plan(self, picture: Image, instruction: str, simulator: Simulator, seed: int) -> NDArray[np.float32]:
        """See `examples.train_small.drive.drivers.Driver`."""
        began = time.perf_counter()
        rows = self.driver.plan(picture, instruction, simulator, seed)
        took_ms = (time.perf_counter() - began) * 1e3
        number, pose = len(self.log.plans), simulator.pose()
        sight = Sight(number, len(self.log.moments) / RATE_HZ, pose, picture, instruction)
        self.log.plans[number] = Plan(sight, rows, ChunkTracker(rows, pose), took_ms, took_ms)
        return rows

    def watch(self, picture: Image, rows: Array, simulator: Simulator) -> None:
        """Notes where the car is, as `drive` shows it."""
        parts: tuple[tuple[Any, Array], ...] = tuple(
            (part.color, np.array([part.transform * corner for corner in fixture.shape.vertices]))
            for part in simulator.env.car.drawlist
            for fixture in part.fixtures
        )
        s, lateral = simulator.track.project(simulator.pose()[None, :2])
        plan = self.log.plans[len(self.log.plans) - 1]
        self.log.moments.append(
            Moment(
                *(len(self.log.moments) / RATE_HZ, 0, simulator.pose(), parts, float(s[0]), float(lateral[0])),
                *(simulator.speed(), plan, "fresh"),
            )
        )


def film_drive(
    driver: Driver, seed: int, instruction: str, path: Path, conditions: Optional[Conditions] = None
) -> None:
    """Drives the road of `seed` and writes the film; its ending says the format: .webp, .gif or .mp4.

    Raises:
        UsageError: another format, or a chunk that comes late: the film would show one that is not driven yet.
    """
    check_format(path)
    how = conditions or Conditions(seconds=SECONDS)
    if how.latency_s:
        raise UsageError("a drive with late chunks can't be filmed", got=f"{how.latency_s:g} s", fix="film one without")
    simulator, filmed = Simulator(), FilmedDriver(driver)
    try:
        drive(filmed, simulator, seed, instruction, how, filmed.watch)
        write_film(path, frames_of(FilmMaker(simulator.env, [instruction]), filmed.log), RATE_HZ)
    finally:
        simulator.close()
