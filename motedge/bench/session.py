"""The work on one candidate: actions to be compared, ticks to be timed, a stretch for the sensors, its memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Optional, Protocol

from motedge.bench.acting import Acted, Acting
from motedge.profile.process_memory import resident_bytes
from motedge.runtime.request import SamplerSettings

# Fewest ticks in a stretch
_FEWEST = 3


@dataclass(frozen=True)
class Answers:
    """Actions on every observation, by its own noise."""

    # [observations][rows][columns], fp32 values
    actions: list[list[list[float]]]
    fields: list[str]
    units: list[str]
    # Of each observation
    forwards: list[int]
    reused: list[int]
    # The first tick at these settings, which pays for prompts, buffers and what libraries do once, ms
    first_ms: float


@dataclass(frozen=True)
class Times:
    """Ticks of one turn."""

    # Each, observation to actions, ms
    ms: list[float]
    # Of which observation
    scenes: list[int]
    # Prompts that were read within them: 0 where the cache has them all
    prefills: int
    launch: str


@dataclass(frozen=True)
class Stretch:
    """Ticks one after the other while sensors are read; seconds of `time.perf_counter`, which processes share."""

    start_s: float
    end_s: float
    ticks: int


@dataclass(frozen=True)
class Memory:
    """Of the process that has this candidate alone."""

    resident_bytes: Optional[int]
    # At its most so far
    peak_bytes: Optional[int]
    # By purpose, as the driver and the libraries tell
    gpu_bytes: dict[str, int]


class Working(Protocol):
    """What is asked of a candidate, in this process or in another."""

    def answers(self, settings: SamplerSettings, seed: int) -> Answers:
        """Acts once on every observation, on observation i with the noise of seed + i."""
        ...

    def times(self, settings: SamplerSettings, lead_in: int, count: int, first: int) -> Times:
        """Times `count` ticks after some that don't count, on observations in turn from number `first` on."""
        ...

    def stretch(self, settings: SamplerSettings, lead_in: int, seconds: float) -> Stretch:
        """Ticks for so long, and at least a few, after some that don't count."""
        ...

    def memory(self) -> Memory:
        """Now."""
        ...

    def close(self) -> None:
        """Frees it."""
        ...


class Session:
    """Works in this process."""

    def __init__(self, acting: Acting) -> None:
        self._acting = acting

    def answers(self, settings: SamplerSettings, seed: int) -> Answers:
        """See `Working.answers`."""
        start_s = time.perf_counter()
        acted = [self._acting.act(0, settings, seed)]
        first_ms = 1e3 * (time.perf_counter() - start_s)
        acted += [self._acting.act(scene, settings, seed + scene) for scene in range(1, self._acting.count)]
        return Answers(
            actions=[_rows(one) for one in acted],
            fields=list(acted[0].fields),
            units=list(acted[0].units),
            forwards=[one.forwards for one in acted],
            reused=[one.reused for one in acted],
            first_ms=round(first_ms, 5),
        )

    def times(self, settings: SamplerSettings, lead_in: int, count: int, first: int) -> Times:
        """See `Working.times`."""
        scenes = [(first + number) % self._acting.count for number in range(count)]
        for number in range(lead_in):
            self._acting.act(scenes[number % count], settings, None)
        found, prefills, launch = [], 0, "host"
        for scene in scenes:
            start_s = time.perf_counter()
            acted = self._acting.act(scene, settings, None)
            found.append(round(1e3 * (time.perf_counter() - start_s), 5))
            prefills, launch = prefills + acted.prefills, acted.launch
        return Times(found, scenes, prefills, launch)

    def stretch(self, settings: SamplerSettings, lead_in: int, seconds: float) -> Stretch:
        """See `Working.stretch`."""
        for number in range(lead_in):
            self._acting.act(number % self._acting.count, settings, None)
        start_s, ticks = time.perf_counter(), 0
        while time.perf_counter() - start_s < seconds or ticks < _FEWEST:
            self._acting.act(ticks % self._acting.count, settings, None)
            ticks += 1
        return Stretch(start_s, time.perf_counter(), ticks)

    def memory(self) -> Memory:
        """See `Working.memory`."""
        resident, peak = resident_bytes()
        return Memory(resident, peak, self._acting.memory_bytes())

    def close(self) -> None:
        """See `Working.close`."""
        self._acting.close()


def _rows(acted: Acted) -> list[list[float]]:
    """Nine digits bring every fp32 back."""
    return [[float(f"{value:.9g}") for value in row] for row in acted.actions.tolist()]


def facts(value: Any) -> dict[str, Any]:
    """JSON form of one of the results above."""
    return dict(vars(value))
