"""A bench without engines: candidates whose ticks take as long, and whose actions are as far off, as a test says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from motedge.bench.candidate import Candidate
from motedge.bench.journal import Journal
from motedge.bench.options import BenchOptions
from motedge.bench.report import bench_document
from motedge.bench.run import BenchRun, Progress
from motedge.bench.session import Answers, Memory, Stretch, Times
from motedge.bench.state import Cell, cells_of
from motedge.bundle import GraphEntry, Manifest, Variant
from motedge.files import write_json
from motedge.profile.sensors.sampler import Sampler
from motedge.profile.sensors.sensor import Sensor
from motedge.runtime.deadline.operating_point import OperatingPoint
from motedge.runtime.policy.loader import GRAPHS
from motedge.runtime.request import SamplerSettings

CANDIDATES = [
    Candidate("unquantized", Path("plain"), None, None),
    Candidate("fp8", Path("quantized"), "fp8", None),
    Candidate("int4-awq", Path("quantized"), "int4-awq", None),
]
POINTS = [
    OperatingPoint("shipped", SamplerSettings()),
    OperatingPoint("2 steps", SamplerSettings(steps=2)),
    OperatingPoint("1 step", SamplerSettings(steps=1, guidance=1.0)),
]
# Forward of each candidate, ms, and how far its actions are off
FORWARD_MS = {"unquantized": 10.0, "fp8": 6.0, "int4-awq": 8.0}
OFF = {"unquantized": 0.0, "fp8": 0.002, "int4-awq": 0.05}
FIELDS, UNITS = ["joint_0", "joint_1", "gripper"], ["rad", "rad", "fraction closed"]
QUICK = BenchOptions(repeat=12, rounds=4, warm_up=1, idle_s=0.0)
FACTS: dict[str, Any] = {
    "device": {
        "system": "Linux",
        "architecture": "aarch64",
        "cpu": "Neoverse-V3AE",
        "usable_cores": 14,
        "gpus": [{"name": "NVIDIA Thor"}],
        "board": "NVIDIA Jetson AGX Thor",
        "target": "jetson-agx-thor-t5000",
        "power_mode": "MAXN",
    },
    "versions": {"motedge": "0.1", "python": "3.12.3"},
    "bundles": [{"name": "edge", "manifest_sha256": "a" * 64, "model": "edge policy-droid", "shape_set": "droid"}],
    "engine": {"name": "tensorrt", "threads": None, "gpu": None},
    "observations": {"count": 2, "kind": "given", "names": ["a", "b"], "sha256": ["1", "2"]},
    "options": QUICK.to_dict(),
    "notes": [],
    "energy_absent": None,
}


class MadeWorking:
    """Gives what a candidate would; `fail` raises where it wants to, told of what is asked and with how many steps."""

    def __init__(
        self, name: str, log: Optional[list[str]] = None, fail: Callable[[str, int], None] = lambda *_: None
    ) -> None:
        self.name, self.log, self.fail, self.closed = name, [] if log is None else log, fail, False
        self._random = np.random.default_rng(len(name))

    def answers(self, settings: SamplerSettings, seed: int) -> Answers:
        self._note("answers", settings)
        base = np.random.default_rng(seed).normal(size=(2, 4, 3))
        noise = np.random.default_rng(1000 + settings.steps).normal(size=base.shape)
        own = base + (OFF[self.name] + 0.03 * (4 - settings.steps)) * noise
        forwards = settings.forwards()
        return Answers(own.astype(np.float32).tolist(), FIELDS, UNITS, [forwards] * 2, [0, 0], 100.0)

    def times(self, settings: SamplerSettings, lead_in: int, count: int, first: int) -> Times:
        self._note("times", settings)
        middle = 5 + FORWARD_MS[self.name] * settings.forwards()
        ms = (middle * self._random.uniform(0.99, 1.01, count)).tolist()
        return Times(ms, [(first + number) % 2 for number in range(count)], 0, "one CUDA graph")

    def stretch(self, settings: SamplerSettings, lead_in: int, seconds: float) -> Stretch:
        self._note("stretch", settings)
        start_s = time.perf_counter()
        time.sleep(seconds)
        return Stretch(start_s, time.perf_counter(), 5)

    def memory(self) -> Memory:
        self.log.append(f"memory {self.name}")
        return Memory(1_000_000_000, 1_200_000_000, {"weights of gen_step": 4_000_000_000})

    def close(self) -> None:
        self.closed = True

    def _note(self, what: str, settings: SamplerSettings) -> None:
        self.log.append(f"{what} {self.name} {settings.steps}")
        self.fail(what, settings.steps)


def made_bundle(root: Path, recipes: Sequence[Optional[str]], kind: str = "primitive-fp32", **changes: Any) -> Path:
    """A bundle whose towers are there in these recipes, and its encoder unquantized, all of one kind."""
    graphs = {}
    for graph in GRAPHS:
        found = {}
        for recipe in recipes if graph != "vae_encoder" else [None]:
            name = kind + (f"-{recipe}" if recipe else "")
            found[name] = Variant(f"graphs/{graph}.{name}.onnx", (), *kind.split("-"), 20, recipe)
        graphs[graph] = GraphEntry(f"contracts/{graph}.json", found)
    fields: dict[str, Any] = {
        "model": {"family": "edge"},
        "shape_set": {"name": "mini"},
        "policy": {"embodiment": "droid_lerobot"},
        **changes,
    }
    write_json(root / "manifest.json", Manifest(graphs=graphs, files={}, **fields).to_dict())
    return root


def made_cells() -> list[Cell]:
    return cells_of(CANDIDATES, POINTS)


def run_made(
    journal: Journal,
    log: Optional[list[str]] = None,
    fail: Callable[[str, str, int], None] = lambda *_: None,
    options: BenchOptions = QUICK,
    sensors: Sequence[Sensor] = (),
    progress: Optional[Progress] = None,
    **how: Any,
) -> None:
    """A bench of the made candidates; `fail` is told candidate, call and steps."""

    def opener(candidate: Candidate) -> MadeWorking:
        fail(candidate.name, "open", 0)
        return MadeWorking(candidate.name, log, lambda what, steps: fail(candidate.name, what, steps))

    with Sampler(sensors, options.interval_ms) as sampler:
        BenchRun(made_cells(), options, journal, opener, sampler, progress=progress).run(**how)


def made_document(folder: Path, lines: Optional[Sequence[Any]] = None, **facts: Any) -> dict[str, Any]:
    """bench.json of a made bench; `lines` in place of a whole run's."""
    if lines is None:
        journal = Journal(folder, {})
        run_made(journal)
        lines = journal.lines
        journal.close()
    return bench_document(made_cells(), lines, {**FACTS, **facts}, {})


def with_energy(lines: Sequence[Any]) -> list[Any]:
    """The lines that a machine with sensors would add."""
    energy = [
        {
            "kind": "energy",
            "cell": cell.id,
            "energy": {"per_chunk_j": 0.5 * FORWARD_MS[cell.candidate.name], "chunks": 5},
        }
        for cell in made_cells()
    ]
    return [*lines[:-1], *energy, lines[-1]]
