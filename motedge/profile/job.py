"""One profile from start to files: whatever ends it, what was measured is written."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from motedge.errors import UsageError
from motedge.files import PathLike, atomic_open, require_writable, write_json
from motedge.profile.chrome_trace import chrome_trace
from motedge.profile.conditions import bundle_identity, machine, versions
from motedge.profile.measure import Measurer, Profiled, Progress
from motedge.profile.measurement import WARM, Measurement
from motedge.profile.options import ProfileOptions
from motedge.profile.page.render import render_page
from motedge.profile.prediction import roofline
from motedge.profile.report import graph_summaries, profile_document
from motedge.profile.sensors.sampler import Sampler
from motedge.profile.sensors.sensor import Sensor
from motedge.profile.span_recorder import SpanRecorder, find_nvtx, span_cost_us
from motedge.profile.times_file import exported_times
from motedge.runtime.policy import Observation

PROFILE, TIMES, TRACE, PAGE = "profile.json", "times.json", "trace.json", "profile.html"
FILES = (PROFILE, TIMES, TRACE, PAGE)


@dataclass(frozen=True)
class Subject:
    """What is profiled, and how it is opened."""

    bundle: Path
    # Backend, variant asked for, recipe, threads and the like, as they are written down
    engine: Mapping[str, Any]
    # Opens it; the caller of `take_profile` closes what it opened
    open: Callable[[], Profiled]
    # Graph -> variant that is run
    variants: Mapping[str, str]
    # Device of the catalogue that the roofline is that of; None: what this machine is
    target: Optional[str] = None


def check_out(folder: PathLike, *, overwrite: bool) -> None:
    """Before any work.

    Raises:
        UsageError: there is a profile already, or there can't be a folder.
        HostError: it can't be written.
    """
    root = Path(folder)
    require_writable(root / PROFILE)
    if (root / PROFILE).exists() and not overwrite:
        raise UsageError(f"{root / PROFILE} exists", fix="give another folder, or --overwrite")


class ProfileRun:
    """A profile in the making. `run` measures; `document` and `write` work however far it came."""

    def __init__(self, subject: Subject, observation: Observation, options: ProfileOptions) -> None:
        self.subject, self.observation, self.options = subject, observation, options
        self.measured = Measurement(origin_s=time.perf_counter(), span_cost_us=span_cost_us())
        # With which other profile ticks were taken in turn; None: by itself
        self.interleaved: Optional[Mapping[str, str]] = None
        # Before anything is measured, since it asks other programs
        self._facts: dict[str, Any] = {
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "device": machine(),
            "versions": versions(),
            "bundle": bundle_identity(subject.bundle),
            "engine": {**subject.engine, "variants": dict(subject.variants)},
            "observation": {"instruction": observation.instruction, "source": observation.source},
        }

    def run(self, sensors: Sequence[Sensor], progress: Optional[Progress] = None) -> None:
        """Measures all phases.

        Raises:
            KeyboardInterrupt: as it came; where it came is noted.
            MotedgeError: the policy's own, or that of opening it; likewise.
        """
        options = self.options
        with Sampler(sensors, options.interval_ms) as sampler:
            try:
                taker = self.opened(sampler, progress)
                taker.first()
                taker.warm_up(options.warmup)
                taker.idle(options.idle_s)
                taker.warm(options)
                taker.steps()
                taker.new_prompts(options.new_prompts)
                taker.energy(options.energy_s)
            except BaseException as error:
                self.stop(error)
                raise

    def opened(self, sampler: Sampler, progress: Optional[Progress] = None) -> Measurer:
        """Opens the policy; what is measured of it goes into `measured`."""
        measured = self.measured
        measured.sensors, measured.parts = sampler.log, sampler.parts
        start_s = time.perf_counter()
        policy = self.subject.open()
        measured.load_s = time.perf_counter() - start_s
        return Measurer(policy, self.observation, measured, sampler, SpanRecorder(find_nvtx()), progress)

    def stop(self, error: BaseException) -> None:
        """Notes that it did not come to its end."""
        words = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        last = self.measured.phases[-1][0] if self.measured.phases else "loading"
        done = len(self.measured.of_phase(WARM))
        where = f"phase {last}" if self.measured.phases else last
        self.measured.stopped = f"{words.splitlines()[0]}; {where}, {done} of {self.options.ticks} warm ticks"

    def document(self) -> dict[str, Any]:
        """profile.json as it stands; of a run that was cut short without the roofline, which takes its time."""
        warm = self.measured.of_phase(WARM)
        found: Optional[dict[str, Any]] = None
        if warm and self.measured.stopped is None:
            found = roofline(
                self.subject.bundle,
                self.subject.target or self._facts["device"]["target"],
                graph_summaries(warm, self.measured.ticks),
                recipe=self.subject.engine.get("recipe"),
                variants=self.subject.variants,
                und_len=warm[0].und_len,
            )
        facts = {**self._facts, "interleaved": self.interleaved}
        return profile_document(self.measured, self.options, facts, found)

    def write(self, folder: PathLike, document: Mapping[str, Any]) -> None:
        """Writes all files.

        Raises:
            HostError: the disk is full or not writable.
        """
        root = Path(folder)
        write_json(root / PROFILE, document, samples=True)
        write_json(root / TIMES, exported_times(self.measured.of_phase(WARM)))
        with atomic_open(root / PAGE, "wb") as stream:
            stream.write(render_page(document).encode("utf-8"))
        write_json(root / TRACE, chrome_trace(self.measured, f"motedge {self._facts['bundle']['name']}"))
