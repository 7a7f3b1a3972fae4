"""The simulated car on its own clock: it drives on by the newest plan, whatever the policy does meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.train_small.drive.tracker import ChunkTracker
from examples.train_small.road.camera import Image
from examples.train_small.road.simulator import RATE_HZ as PHYSICS_HZ
from examples.train_small.road.simulator import Simulator
from examples.train_small.road.track import Array

# gymnasium's brakes take 6 m/s within 0.1 s. No speed is asked for that is lower than the car's own by more than this:
# it then brakes with 8 m/s2, as a car can on a dry road
_BRAKE_STEP_M_S = 0.33
_START_M_S = 6.0


@dataclass(frozen=True, eq=False)
class Sight:
    """What the policy is asked with, and where that was."""

    # Counts the requests
    number: int
    # s since the drive began
    time_s: float
    # x, y, yaw
    pose: Array
    picture: Image
    instruction: str


@dataclass(frozen=True, eq=False)
class Plan:
    """A chunk, and how to follow it from where it was asked for."""

    sight: Sight
    # float32 [rows, 9]
    rows: NDArray[np.float32]
    tracker: ChunkTracker
    round_trip_ms: float
    infer_ms: float

    @classmethod
    def of(cls, sight: Sight, chunk: Any) -> Plan:
        """Of a policy's answer.

        Raises:
            ContractError: nothing that a car can follow.
        """
        infer_ms = float(chunk.server_timing.get("infer_ms", 0.0))
        rows = np.asarray(chunk.actions, np.float32)
        return cls(sight, rows, ChunkTracker(rows, sight.pose), float(chunk.round_trip_ms), infer_ms)


class Vehicle:
    """One car on one road. Its time is that of the drive: it does not wait."""

    def __init__(self, seed: int) -> None:
        """Puts it on the road of a seed, where and as `examples.train_small.drive` does."""
        lot = np.random.default_rng([seed, 2])
        self.simulator = Simulator()
        self.start_s = float(lot.uniform(0, 900))
        beside, askew = float(lot.uniform(-2, 2)), float(lot.normal(0, 0.05))
        self.simulator.reset(seed, self.start_s, beside, askew, _START_M_S)
        self._along = np.array([self.start_s])
        self._steps = 0

    @property
    def time_s(self) -> float:
        """Since the drive began."""
        return self._steps / PHYSICS_HZ

    def advance_to(self, time_s: float, plan: Plan) -> None:
        """Drives until then, following a plan; after its last row the car brakes and stands."""
        due = int(time_s * PHYSICS_HZ + 1e-6)
        while self._steps < due:
            elapsed_s = self.time_s - plan.sight.time_s
            curvature, speed = plan.tracker.command(self.simulator.pose(), elapsed_s)
            self.simulator.drive(curvature, max(speed, self.simulator.speed() - _BRAKE_STEP_M_S))
            self._steps += 1

    def place(self) -> tuple[float, float]:
        """Metres along the road, and to the right of its middle."""
        self._along, lateral = self.simulator.track.project(self.simulator.pose()[None, :2], self._along)
        return float(self._along[0]), float(lateral[0])

    def close(self) -> None:
        """Frees the world."""
        self.simulator.close()
