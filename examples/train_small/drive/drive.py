"""One drive: a driver in the loop with the simulator, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

import numpy as np

from examples.train_small.drive.drivers import Driver
from examples.train_small.drive.tracker import ChunkTracker
from examples.train_small.road.camera import Image
from examples.train_small.road.expert import RATE_HZ, Expert, behaviour_index, planar_trajectory
from examples.train_small.road.instructions import behaviour_of
from examples.train_small.road.simulator import RATE_HZ as PHYSICS_HZ
from examples.train_small.road.simulator import Simulator
from examples.train_small.road.track import HALF_WIDTH_M, Array
from motedge.errors import UsageError

_SECONDS = 15.0
_SUBSTEPS = round(PHYSICS_HZ / RATE_HZ)
# A car that is this far off the road for so long does not come back: the rest needs no driving
_LOST_M, _LOST_S = 3 * HALF_WIDTH_M, 2.0
# gymnasium's brakes take 6 m/s within 0.1 s, so that stopping would take no way. No speed is asked for that is lower
# than the car's own by more than this: it then brakes with 8 m/s2, as a car can on a dry road
_BRAKE_STEP_M_S = 0.33


@dataclass(frozen=True)
class Conditions:
    """How a drive goes."""

    seconds: float = _SECONDS
    # Rows of a chunk that are driven before the next picture
    every: int = 4
    # From the picture to the chunk that it led to; the car goes on by the one before
    latency_s: float = 0.0
    # Share of pictures that never come
    dropped: float = 0.0
    # How far beside the middle the car starts at most, m, and how askew, rad (a standard deviation)
    beside_m: float = 2.0
    askew_rad: float = 0.05

    def __post_init__(self) -> None:
        if not (
            1 <= self.seconds <= 600
            and 1 <= self.every <= 16
            and 0 <= self.latency_s < 2
            and 0 <= self.dropped < 1
            and 0 <= self.beside_m <= HALF_WIDTH_M
            and 0 <= self.askew_rad <= 1
        ):
            raise UsageError(
                "a drive can't go so",
                expected="1 to 600 s, a chunk every 1 to 16 rows, a latency of 0 to 2 s, a share dropped of 0 to 1, "
                f"a start at most {HALF_WIDTH_M:.2f} m beside the middle and 1 rad askew",
                got=self,
            )


@dataclass(frozen=True)
class Drive:
    """What came of a drive, at 10 Hz."""

    behaviour: str
    seed: int
    # m to the right of the middle, m/s, m along the road since the start: [n]
    lateral: Array
    speed: Array
    way: Array
    # The expert would have come so far in the same time, m
    way_expert: float
    # Mean distance of the plans from the expert's from the same places, m, [plans]
    plan_error: Array
    plan_ms: Array


Watch = Callable[[Image, Array, Simulator], None]


def drive(
    driver: Driver,
    simulator: Simulator,
    seed: int,
    instruction: str,
    conditions: Optional[Conditions] = None,
    watch: Optional[Watch] = None,
) -> Drive:
    """Drives the road of `seed` as told.

    Args:
        driver: Who plans.
        simulator: Is reset.
        seed: Of the road, of where on it the car starts, and of the sampler's noise.
        instruction: In words; its behaviour is what is scored.
        conditions: None: 15 s, a chunk every 4 rows, no latency, nothing dropped.
        watch: Is shown every picture and the newest chunk.
    """
    how, behaviour = conditions or Conditions(), behaviour_of(instruction)
    lot = np.random.default_rng([seed, 2])
    start = float(lot.uniform(0, 900))
    simulator.reset(seed, start, float(lot.uniform(-1, 1)) * how.beside_m, float(lot.normal(0, how.askew_rad)), 6.0)
    expert, what = Expert(simulator.track), behaviour_index(behaviour)
    s = np.array([start])
    log: list[tuple[float, float, float]] = []
    planned: list[tuple[Array, Array, float]] = []
    plan_ms: list[float] = []
    current: Optional[tuple[ChunkTracker, int]] = None
    waiting: list[tuple[int, ChunkTracker, int]] = []
    rows, lost = np.zeros((1, 9), np.float32), 0
    for step in range(round(how.seconds * PHYSICS_HZ)):
        if step % (how.every * _SUBSTEPS) == 0 and not (step and lot.random() < how.dropped):
            pose, picture = simulator.pose(), simulator.picture()
            began = time.perf_counter()
            rows = driver.plan(picture, instruction, simulator, (seed * 1009 + step) % 2**32)
            plan_ms.append((time.perf_counter() - began) * 1e3)
            planned.append((rows, pose, float(s[0])))
            # The first chunk is waited for: a car that has none does not start
            ready = step + round(how.latency_s * PHYSICS_HZ) if step else 0
            waiting.append((ready, ChunkTracker(rows, pose), step))
        while waiting and waiting[0][0] <= step:
            _, tracker, taken = waiting.pop(0)
            current = tracker, taken
        if current is None:
            raise UsageError("nobody drives")
        pose = simulator.pose()
        if step % _SUBSTEPS == 0:
            s, lateral = simulator.track.project(pose[None, :2], s)
            log.append((float(lateral[0]), simulator.speed(), float(s[0] - start)))
            if watch is not None:
                watch(simulator.picture(), rows, simulator)
            lost = lost + 1 if abs(log[-1][0]) > _LOST_M else 0
            if lost > _LOST_S * RATE_HZ:
                break
        curvature, speed = current[0].command(pose, (step - current[1]) / PHYSICS_HZ)
        simulator.drive(curvature, max(speed, simulator.speed() - _BRAKE_STEP_M_S))
    far = expert.way(start, what, how.seconds)
    errors = np.array([plan_error(rows, wanted) for (rows, *_), wanted in zip(planned, _wanted(expert, what, planned))])
    return Drive(behaviour, seed, *np.array(log).T, far, errors, np.array(plan_ms))


def _wanted(expert: Expert, what: int, planned: list[tuple[Array, Array, float]]) -> Array:
    """The expert's chunks from where plans were made, all at once: one by one they take as long as the model."""
    _, poses, near = zip(*planned)
    return expert.plan(np.array(poses), np.full(len(planned), what), np.array(near))


def plan_error(rows: Array, expert: Array) -> float:
    """Mean distance of the places of two chunks, m."""
    return float(np.hypot(*(planar_trajectory(rows) - planar_trajectory(expert))[1:, :2].T).mean())
