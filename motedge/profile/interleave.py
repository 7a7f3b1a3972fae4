"""Two policies profiled in turn: what slows the machine for a while slows both alike."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Optional

from motedge.profile.job import ProfileRun
from motedge.profile.measure import Measurer, Progress
from motedge.profile.measurement import WARM
from motedge.profile.options import FEWEST_TICKS, ProfileOptions
from motedge.profile.sensors.sampler import Sampler
from motedge.profile.sensors.sensor import Sensor


def run_interleaved(
    runs: tuple[ProfileRun, ProfileRun],
    options: ProfileOptions,
    sensors: Sequence[Sensor],
    progress: Optional[Progress] = None,
) -> None:
    """Takes warm ticks in the order A B, B A, A B, ...; everything else one after the other.

    Both policies are open at once. As `ProfileRun.run`, it notes in both what ends it early.

    Raises:
        KeyboardInterrupt, MotedgeError: as they came.
    """
    session = uuid.uuid4().hex
    for run, name in zip(runs, "AB"):
        run.interleaved = {"session": session, "side": name}
    try:
        with Sampler(sensors, options.interval_ms) as sampler:
            takers = [run.opened(sampler, progress) for run in runs]
            for taker in takers:
                taker.first()
                taker.warm_up(options.warmup)
            _take_turns(runs, takers, options, progress)
            for taker in takers:
                taker.finish_warm()
                taker.steps()
                taker.new_prompts(options.new_prompts)
                taker.idle(options.idle_s)
                taker.energy(options.energy_s)
    except BaseException as error:
        for run in runs:
            run.stop(error)
        raise


def _take_turns(
    runs: Sequence[ProfileRun], takers: Sequence[Measurer], options: ProfileOptions, progress: Optional[Progress]
) -> None:
    start_s = time.perf_counter()
    try:
        for number in range(options.ticks):
            if time.perf_counter() - start_s > 2 * options.max_s and number >= FEWEST_TICKS:
                for run in runs:
                    words = f"{number} of {options.ticks} pairs of warm ticks within {2 * options.max_s:g} s"
                    run.measured.notes.append(words)
                break
            if progress is not None:
                progress(f"{WARM}, in turn", number, options.ticks)
            for taker in takers if number % 2 == 0 else list(reversed(takers)):
                taker.warm_tick()
    finally:
        for run in runs:
            run.measured.phases.append((WARM, start_s, time.perf_counter()))
