"""Simulated time for deadlines: a clock that jumps, a worker whose jobs end when simulated time says, a policy that
takes as long as it is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from motedge.errors import HostError
from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.policy.observation import Observation
from motedge.runtime.request import SamplerSettings

RATE_HZ, ROWS = 15.0, 32
FIELDS = (*(f"joint_{index}" for index in range(7)), "gripper")
UNITS = ("rad",) * 7 + ("fraction closed",)


class SimulatedClock:
    """Shows what it was set to."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self._now_s = now_s

    def now_s(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        assert seconds >= 0
        self._now_s += seconds

    def set(self, now_s: float) -> None:
        self._now_s = now_s


class SimulatedWorker:
    """Runs work at once, on a clock of its own; the job ends for others when their clock has come that far."""

    def __init__(self, clock: SimulatedClock) -> None:
        self.clock, self.closed = clock, 0
        self._ends: dict[Future[Any], float] = {}

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        if self.closed:
            raise HostError("the policy is closed")
        began_s = self.clock.now_s()
        job: Future[Any] = Future()
        try:
            job.set_result(work())
        except Exception as error:  # noqa: BLE001 -- as a thread does
            job.set_exception(error)
        self._ends[job] = self.clock.now_s()
        self.clock.set(began_s)
        return job

    def wait(self, job: Future[Any], until_s: float) -> bool:
        end_s = self._ends[job]
        assert not math.isinf(min(end_s, until_s)), "this would wait for ever"
        self.clock.set(max(self.clock.now_s(), min(end_s, until_s)))
        return end_s <= self.clock.now_s()

    def close(self, timeout_s: float) -> None:
        self.closed += 1


@dataclass
class Act:
    """One call that reached the policy."""

    settings: Optional[SamplerSettings]
    seed: Optional[int]
    # When it returned, on the simulated clock; None where it failed
    ended_at_s: Optional[float] = None
    committed: Any = None


@dataclass
class SimulatedPolicy:
    """Takes `latency(settings)` seconds. Row i of its n-th chunk holds n in the first column and i in the second."""

    clock: SimulatedClock
    latency: Callable[[SamplerSettings], float]
    settings: SamplerSettings = field(default_factory=lambda: SamplerSettings(guidance_interval=(960.0, 1001.0)))
    error: Optional[Callable[[int], Optional[Exception]]] = None
    acts: list[Act] = field(default_factory=list)
    closed: int = 0

    def act(
        self,
        observation: Any,
        *,
        seed: Optional[int] = None,
        settings: Optional[SamplerSettings] = None,
        committed: Any = None,
    ) -> ActionChunk:
        number = len(self.acts)
        self.acts.append(Act(settings, seed, committed=committed))
        assert settings is not None
        self.clock.advance(self.latency(settings))
        problem = self.error(number) if self.error else None
        if problem is not None:
            raise problem
        self.acts[number].ended_at_s = self.clock.now_s()
        return make_chunk(number)

    def close(self) -> None:
        self.closed += 1


def make_chunk(number: int = 0, rows: int = ROWS, rate_hz: float = RATE_HZ) -> ActionChunk:
    """A chunk that tells its number and rows."""
    actions = np.zeros((rows, 8), np.float32)
    actions[:, 0], actions[:, 1] = number, np.arange(rows)
    return ActionChunk(actions, rate_hz, FIELDS, UNITS, "droid_lerobot", 7, 5, (), {"total_ms": 1.0}, {"steps": 4})


def forwards_of(settings: SamplerSettings) -> int:
    """Forwards that a request takes."""
    from motedge.runtime.deadline import OperatingPoint

    return OperatingPoint("x", settings).forwards


def linear_latency(fixed_ms: float, per_forward_ms: float) -> Callable[[SamplerSettings], float]:
    """Seconds that grow with the forwards."""
    return lambda settings: (fixed_ms + per_forward_ms * forwards_of(settings)) / 1e3


def observation() -> Observation:
    """Some observation."""
    return Observation(np.zeros(7), 0.1, "go", image=np.zeros((540, 640, 3), np.uint8))
