"""One bench from bundles to files: what it is of, the work, the report of however far it came."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from motedge.bench.acting import ActingOptions, check_sample
from motedge.bench.candidate import Candidate
from motedge.bench.journal import Journal, check_journal
from motedge.bench.no_energy import why_no_energy
from motedge.bench.observations import Scene
from motedge.bench.options import BenchOptions
from motedge.bench.page.render import render_page
from motedge.bench.prediction import predictions
from motedge.bench.report import FILE, bench_document
from motedge.bench.run import BenchRun, Progress
from motedge.bench.runnable import not_runnable
from motedge.bench.state import ANSWERS, FAILED, cells_of
from motedge.bench.worker import Worker
from motedge.errors import MotedgeError
from motedge.files import PathLike, atomic_open, write_json
from motedge.profile.conditions import bundle_identity, device_key, machine, versions
from motedge.profile.sensors.sampler import Sampler
from motedge.profile.sensors.sensor import Sensor
from motedge.runtime.backends import DEVICE_BACKENDS
from motedge.runtime.deadline.operating_point import OperatingPoint
from motedge.runtime.policy import GpuOptions

PAGE = "bench.html"
# Ticks at the beginning of a turn: on a GPU the first launches piece by piece and the second captures
_LEAD_IN, _DEVICE_LEAD_IN = 1, 3


@dataclass(frozen=True)
class BenchSubject:
    """What is measured."""

    # The reference first
    candidates: Sequence[Candidate]
    # As shipped first
    points: Sequence[OperatingPoint]
    # None: the sample of a tick that bundles carry
    scenes: Optional[tuple[Scene, ...]]
    engine: str
    threads: Optional[int] = None
    check: str = "full"
    gpu: Optional[GpuOptions] = None
    # Device of the catalogue that the plan is for; None: what this machine is
    target: Optional[str] = None
    # What was left out, and why
    notes: Sequence[str] = ()


class Bench:
    """A bench in a folder. `run` goes on from what is there; `write` works however far it came.

    Args:
        subject: what is measured.
        options: how.
        out: the folder.
        restart: forget what is there.

    Raises:
        UsageError: the folder holds another bench, or there is nothing that could act, or be judged by.
        HostError: it can't be written, or another process writes it.
    """

    def __init__(self, subject: BenchSubject, options: BenchOptions, out: PathLike, *, restart: bool = False) -> None:
        _require_acting(subject)
        self.subject, self.options, self.root = subject, options, Path(out)
        self.cells = cells_of(subject.candidates, subject.points)
        self._facts = _facts(subject, options)
        self.journal = Journal(out, _identity(subject, options, self._facts), restart=restart)
        self._predictions: Optional[dict[str, dict[str, Any]]] = None
        # The last document, and of how many lines it is
        self._document: Optional[dict[str, Any]] = None
        self._of_lines = -1

    def run(self, sensors: Sequence[Sensor], progress: Optional[Progress] = None, *, retry: bool = False) -> None:
        """Measures what is not there; the report is written after every round.

        Raises:
            MotedgeError, KeyboardInterrupt: as `BenchRun.run`.
        """
        lead_in = _DEVICE_LEAD_IN if self.subject.engine in DEVICE_BACKENDS else _LEAD_IN
        with Sampler(sensors, self.options.interval_ms) as sampler:
            work = BenchRun(
                self.cells,
                self.options,
                self.journal,
                self._open,
                sampler,
                lead_in=lead_in,
                progress=progress,
                after_round=self._draft,
            )
            work.run(retry=retry)

    @property
    def begun(self) -> bool:
        """Whether anything was measured, or failed."""
        return any(line["kind"] in (ANSWERS, FAILED) for line in self.journal.lines)

    def document(self) -> dict[str, Any]:
        """bench.json as it stands."""
        if self._document is None or self._of_lines != len(self.journal.lines):
            self._document, self._of_lines = self._made(draft=False), len(self.journal.lines)
        return self._document

    def write(self, *, draft: bool = False) -> None:
        """Writes bench.json and bench.html; a draft lacks the intervals.

        Raises:
            HostError: the disk is full or not writable.
        """
        document = self._made(draft=True) if draft else self.document()
        write_json(self.root / FILE, document, samples=True)
        with atomic_open(self.root / PAGE, "wb") as stream:
            stream.write(render_page(document).encode("utf-8"))

    def _draft(self) -> None:
        if self.begun:
            self.write(draft=True)

    def _made(self, *, draft: bool) -> dict[str, Any]:
        if self._predictions is None:
            target = self.subject.target or self._facts["device"]["target"]
            self._predictions = predictions(self.cells, self.subject.engine, target)
        facts = {**self._facts, "energy_absent": why_no_energy(self.journal.lines, self.options.energy_s)}
        return bench_document(self.cells, self.journal.lines, facts, self._predictions, draft=draft)

    def close(self) -> None:
        """Lets another process go on with it."""
        self.journal.close()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self, candidate: Candidate) -> Worker:
        subject = self.subject
        return Worker(
            ActingOptions(
                bundle=candidate.bundle,
                recipe=candidate.recipe,
                variant=candidate.variant,
                engine=subject.engine,
                seed=self.options.seed,
                threads=subject.threads,
                check=subject.check,
                gpu=subject.gpu,
                scenes=subject.scenes,
            )
        )


def check_bench(
    subject: BenchSubject, options: BenchOptions, out: PathLike, *, restart: bool = False
) -> dict[str, MotedgeError]:
    """Refuses what `Bench` would; opens and makes nothing.

    Returns:
        Candidate's name -> why it can't be opened: its cells will fail.

    Raises:
        UsageError, DataError, HostError: as `Bench`, but for another process that writes the folder.
    """
    found = _require_acting(subject)
    check_journal(out, _identity(subject, options, _facts(subject, options)), restart=restart)
    return found


@contextlib.contextmanager
def written_at_last(bench: Bench) -> Iterator[None]:
    """Writes the report at the end of the block, whatever ends it, if there is anything to tell."""
    try:
        yield
    finally:
        if bench.begun:
            bench.write()


def _require_acting(subject: BenchSubject) -> dict[str, MotedgeError]:
    """Candidates that can't be opened; refused where the reference is one, or has nothing to act on."""
    if subject.scenes is None:
        check_sample(subject.candidates[0].bundle, subject.engine)
    return not_runnable(subject.candidates, subject.engine)


def _facts(subject: BenchSubject, options: BenchOptions) -> dict[str, Any]:
    scenes = subject.scenes
    roots = dict.fromkeys(candidate.bundle for candidate in subject.candidates)
    seen = {"count": 1, "kind": "the sample of a tick that the bundle carries", "names": [], "sha256": []}
    if scenes is not None:
        seen = {
            "count": len(scenes),
            "kind": "given",
            "names": [scene.name for scene in scenes],
            "sha256": [scene.sha256 for scene in scenes],
        }
    return {
        "device": machine(),
        "versions": versions(),
        "bundles": [bundle_identity(root) for root in roots],
        "engine": {"name": subject.engine, "threads": subject.threads, "gpu": _gpu(subject)},
        "observations": seen,
        "options": options.to_dict(),
        "notes": list(subject.notes),
    }


def _gpu(subject: BenchSubject) -> Optional[dict[str, Any]]:
    on_gpu = subject.engine in DEVICE_BACKENDS and subject.gpu is not None
    return dataclasses.asdict(subject.gpu) if on_gpu and subject.gpu is not None else None


def _identity(subject: BenchSubject, options: BenchOptions, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for figures to stand side by side."""
    return {
        "bundles": [bundle["manifest_sha256"] for bundle in facts["bundles"]],
        "device": list(device_key(facts["device"])),
        "power mode": facts["device"]["power_mode"],
        "versions": facts["versions"],
        "engine": facts["engine"],
        "candidates": [candidate.to_dict() for candidate in subject.candidates],
        "operating points": [point.to_dict() for point in subject.points],
        "observations": facts["observations"]["sha256"],
        "options": options.to_dict(),
    }
