"""Running the ticks of a profile: cold, warm, new prompts, and those during which sensors are read."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Optional, Protocol

from motedge.errors import ObservationError
from motedge.profile.measurement import (
    ENERGY,
    FIRST,
    IDLE,
    NEW_PROMPT,
    STEPS,
    WARM,
    WARMUP,
    Measurement,
    TickSample,
)
from motedge.profile.options import FEWEST_TICKS, ProfileOptions
from motedge.profile.process_memory import resident_bytes
from motedge.profile.sensors.sampler import Sampler
from motedge.profile.sensors.sensor import ENERGY_J, POWER_W
from motedge.profile.span_recorder import DEVICE, SpanRecorder
from motedge.runtime.policy import ActionChunk, Observation
from motedge.runtime.spans import listening

LOG = logging.getLogger(__name__)
# Between two looks at the clock while waiting for a planned moment
_NAP_S = 0.002
# Ticks in which a GPU tells its steps: the first pays for the pieces, and is left out
_STEP_TICKS, _STEP_WARMUP = 20, 2
# Told of each tick: phase, how many, of how many
Progress = Callable[[str, int, int], None]


class Profiled(Protocol):
    """What is profiled. `motedge.runtime.policy.Policy` is one."""

    def act(self, observation: Observation) -> ActionChunk:
        """The next chunk of actions."""
        ...

    def memory_bytes(self) -> dict[str, int]:
        """What it holds of a GPU's memory, by purpose."""
        ...


class Measurer:
    """Takes the ticks of one policy into a measurement."""

    def __init__(
        self,
        policy: Profiled,
        observation: Observation,
        into: Measurement,
        sampler: Sampler,
        recorder: SpanRecorder,
        progress: Optional[Progress] = None,
    ) -> None:
        self._policy, self._observation, self._into, self._sampler = policy, observation, into, sampler
        self._recorder, self._progress = recorder, progress

    def first(self) -> None:
        """The first tick after loading: it pays for the prompts, the buffers, and what libraries do once."""
        with self._phase(FIRST):
            chunk = self._tick(FIRST, self._observation)
        self._into.chunk = {
            **chunk.details,
            "rows": len(chunk.actions),
            "rate_hz": chunk.rate_hz,
            "missing_views": list(chunk.missing_views),
            "embodiment": chunk.embodiment,
        }

    def warm_up(self, count: int) -> None:
        """Ticks that are kept apart from what is measured."""
        with self._phase(WARMUP):
            for number in range(count):
                self._tell(WARMUP, number, count)
                self._tick(WARMUP, self._observation)

    def idle(self, seconds: float) -> None:
        """Rest, with the policy loaded, if some sensor tells of power."""
        if seconds and self._power_is_read():
            with self._phase(IDLE):
                time.sleep(seconds)

    def warm(self, options: ProfileOptions) -> None:
        """The ticks that latency is told from; no sensor is read during any of them."""
        with self._phase(WARM):
            start_s = time.perf_counter()
            for number in range(options.ticks):
                if time.perf_counter() - start_s > options.max_s and number >= FEWEST_TICKS:
                    self._into.notes.append(f"{number} of {options.ticks} warm ticks within {options.max_s:g} s")
                    break
                self._tell(WARM, number, options.ticks)
                due_s = None if options.rate_hz is None else start_s + number / options.rate_hz
                self.warm_tick(due_s)
        self.finish_warm()

    def finish_warm(self) -> None:
        """Looks at the memory once everything that ticks need is there."""
        self._into.rss_bytes, self._into.peak_rss_bytes = resident_bytes()
        self._into.ledger = self._policy.memory_bytes()

    def warm_tick(self, due_s: Optional[float] = None) -> None:
        """One of them, at a moment of `time.perf_counter` or at once."""
        with self._sampler.quiet():
            if due_s is not None:
                _wait_until(due_s)
            self._tick(WARM, self._observation, due_s)

    def steps(self) -> None:
        """Ticks in which a GPU tells the time of each step and branch; none where the host tells them anyway."""
        if not any(span.track == DEVICE for tick in self._into.ticks for span in tick.spans):
            return
        with self._phase(STEPS):
            for number in range(_STEP_WARMUP + _STEP_TICKS):
                self._tell(STEPS, number, _STEP_WARMUP + _STEP_TICKS)
                phase = WARMUP if number < _STEP_WARMUP else STEPS
                with self._sampler.quiet():
                    self._tick(phase, self._observation, device_steps=True)

    def new_prompts(self, count: int) -> None:
        """Ticks that each bring other words: what a change of task costs."""
        with self._phase(NEW_PROMPT):
            for number, words in enumerate(other_instructions(self._observation.instruction, count)):
                self._tell(NEW_PROMPT, number, count)
                try:
                    with self._sampler.quiet():
                        self._tick(NEW_PROMPT, dataclasses.replace(self._observation, instruction=words))
                except ObservationError as error:
                    self._into.notes.append(f"no more new prompts after {number}: {error.what}")
                    break

    def energy(self, seconds: float) -> None:
        """Ticks beside which sensors are read all the time; none of them counts as latency."""
        if not seconds:
            return
        if not self._power_is_read():
            self._into.notes.append("no energy: no sensor here tells of power")
            return
        with self._phase(ENERGY):
            start_s, number = time.perf_counter(), 0
            while time.perf_counter() - start_s < seconds or number < FEWEST_TICKS:
                self._tick(ENERGY, self._observation)
                number += 1

    def _power_is_read(self) -> bool:
        self._sampler.sample()
        return any(channel.kind in (POWER_W, ENERGY_J) for channel in self._sampler.log.channels())

    def _tick(
        self, phase: str, observation: Observation, due_s: Optional[float] = None, *, device_steps: bool = False
    ) -> ActionChunk:
        with listening(self._recorder, device_steps=device_steps):
            start_s = time.perf_counter()
            chunk = self._policy.act(observation)
            end_s = time.perf_counter()
        late_ms = None if due_s is None else 1e3 * (start_s - due_s)
        details = {**chunk.details, "forwards": chunk.forwards}
        spans = self._recorder.take()
        self._into.ticks.append(TickSample.of(phase, (start_s, end_s), spans, details, late_ms))
        return chunk

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Noted even if it is cut short."""
        LOG.debug("phase %s", name)
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self._recorder.take()
            self._into.phases.append((name, start_s, time.perf_counter()))

    def _tell(self, phase: str, number: int, count: int) -> None:
        if self._progress is not None:
            self._progress(phase, number, count)


def other_instructions(instruction: str, count: int) -> Sequence[str]:
    """Instructions of about the same length: the words turned round, so that the model sees another prompt."""
    words = instruction.split()
    if len(words) < 2:
        return [f"{instruction} {number + 2}" for number in range(count)]
    turned = [" ".join(words[turn:] + words[:turn]) for turn in range(1, len(words))]
    return [turned[number % len(turned)] + " again" * (number // len(turned)) for number in range(count)]


def _wait_until(due_s: float) -> None:
    while (left_s := due_s - time.perf_counter()) > 0:
        time.sleep(min(left_s, _NAP_S) if left_s > _NAP_S else 0)
