"""The loop: a picture every period, a chunk every few, the car driven on by the newest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from examples.drive_remote.vehicle import Plan, Sight, Vehicle
from examples.train_small.road.expert import RATE_HZ
from examples.train_small.road.track import HALF_WIDTH_M, Array
from motedge.client import ChunkStream, Clock, StreamOptions, camera_observation
from motedge.client.worker import Worker
from motedge.errors import UsageError

# A car that is this far off the road for so long does not come back
_LOST_M, _LOST_S = 3 * HALF_WIDTH_M, 2.0
_FIRST_S = 60.0


@dataclass(frozen=True)
class Leg:
    """A part of a drive with one instruction."""

    instruction: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Moment:
    """The car at the beginning of a period."""

    time_s: float
    leg: int
    pose: Array
    # Parts of the car, for films: colour and corners in the world
    parts: tuple[tuple[Any, Array], ...]
    along_m: float
    lateral_m: float
    speed_m_s: float
    # What is followed from now on
    plan: Plan
    # As `TimedAction.kind`
    kind: str


@dataclass(eq=False)
class Log:
    """What was driven."""

    moments: list[Moment] = field(default_factory=list)
    # Those that were asked for and came, in order
    plans: dict[int, Plan] = field(default_factory=dict)
    # What the source failed with
    errors: list[str] = field(default_factory=list)
    stream: dict[str, Any] = field(default_factory=dict)
    ended: str = "at the end"


class DrivingLoop:
    """Drives the legs one after the other, on one road."""

    def __init__(self, policy: Any, vehicle: Vehicle, legs: Sequence[Leg], *, every: int, seed: int) -> None:
        """Sets it up.

        Args:
            policy: `motedge.client.RemotePolicy`, or what has its `act`.
            vehicle: the car.
            legs: what it is told, and how long.
            every: periods of 0.1 s from one chunk to the next.
            seed: of the sampler's noise.

        Raises:
            UsageError: no legs, or of no length.
        """
        if not legs or not all(1 <= leg.seconds <= 600 for leg in legs):
            raise UsageError("a drive can't go so", expected="legs of 1 to 600 s", got=[leg.seconds for leg in legs])
        self._policy, self._vehicle, self._legs, self._seed = policy, vehicle, legs, seed
        self.options = StreamOptions(
            rate_hz=RATE_HZ, horizon=every, prefetch_at=every - 1, seam="cut", on_empty="hold", on_error="report"
        )
        self._sight: Optional[Sight] = None
        self._asked = 0
        self.log = Log()

    def run(self, clock: Clock, worker: Optional[Worker] = None) -> Log:
        """Drives; what was driven stays in `log` if it ends early.

        Args:
            clock: the machine's, or a simulated one, on which the drive goes as fast as it can.
            worker: where the policy is asked; None: a thread.

        Raises:
            ChunkGapError, ChunkSourceError: no first chunk.
        """
        self._look(0)
        with ChunkStream(self._ask, self._observe, self.options, clock=clock, worker=worker) as stream:
            stream.wait_first(_FIRST_S)
            try:
                self._drive(stream, clock)
            finally:
                self.log.stream = stream.report().to_dict()
        return self.log

    def _drive(self, stream: ChunkStream, clock: Clock) -> None:
        began_s, plan = clock.now_s(), self.log.plans[0]
        ends = np.cumsum([leg.seconds for leg in self._legs])
        lost = 0
        while True:
            # The world does not wait for a loop that is late
            self._vehicle.advance_to(clock.now_s() - began_s, plan)
            leg = int(np.searchsorted(ends, self._vehicle.time_s + 1e-6, side="right"))
            if leg >= len(self._legs):
                return
            self._look(leg)
            action = stream.next_action()
            if action.error is not None:
                self.log.errors.append(action.error)
                print(f"no new chunk: {action.error}", file=sys.stderr)
            plan = self.log.plans[action.chunk]
            moment = self._note(leg, plan, action.kind)
            lost = lost + 1 if abs(moment.lateral_m) > _LOST_M else 0
            if lost > _LOST_S * RATE_HZ:
                self.log.ended = "off the road for good"
                return
            clock.sleep(stream.next_due_s() - clock.now_s())

    def _look(self, leg: int) -> None:
        """The simulator is one thread's: the worker takes what was seen last."""
        simulator = self._vehicle.simulator
        self._sight = Sight(
            -1, self._vehicle.time_s, simulator.pose(), simulator.picture(), self._legs[leg].instruction
        )

    def _observe(self) -> Sight:
        seen, number = self._sight, self._asked
        self._asked += 1
        if seen is None:
            raise UsageError("nothing was seen yet")
        return Sight(number, seen.time_s, seen.pose, seen.picture, seen.instruction)

    def _ask(self, sight: Sight, committed: Any) -> Any:
        sent = camera_observation(sight.picture, sight.instruction)
        chunk = self._policy.act(sent, seed=(self._seed * 1009 + sight.number) % 2**32)
        # What is left of an earlier chunk counts from an earlier picture; the stream refuses it
        if getattr(chunk, "kind", "fresh") == "fresh":
            self.log.plans[sight.number] = Plan.of(sight, chunk)
        return chunk

    def _note(self, leg: int, plan: Plan, kind: str) -> Moment:
        simulator, (along_m, lateral_m) = self._vehicle.simulator, self._vehicle.place()
        parts = tuple(
            (part.color, np.array([part.transform * corner for corner in fixture.shape.vertices]))
            for part in simulator.env.car.drawlist
            for fixture in part.fixtures
        )
        moment = Moment(
            self._vehicle.time_s, leg, simulator.pose(), parts, along_m, lateral_m, simulator.speed(), plan, kind
        )
        self.log.moments.append(moment)
        return moment
