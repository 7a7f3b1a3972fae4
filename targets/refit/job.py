"""The refit itself: every engine of a target, with the weights of a second bundle, into that bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle
from motedge.errors import UsageError
from motedge.files import copy_file, require_free, sha256_file, write_json
from motedge.memory import available_memory
from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles
from motedge.runtime.engine_files.gate import LoadHost, check_engine
from motedge.runtime.engine_files.record import ENGINES_FOLDER
from motedge.targets.builders.builder import Builder
from motedge.targets.builders.job import BuildOptions, PlannedEngine, plan_engines
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.builders.this_gpu import this_compute_capability
from motedge.targets.builders.trt.builders import TensorRtBuilder
from motedge.targets.catalog import Target
from motedge.targets.refit.agreement import require_same_graph, require_same_model
from motedge.targets.refit.checks import (
    require_exchangeable,
    require_own_engine,
    require_own_version,
    require_refittable,
    wanted_engines,
)
from motedge.targets.refit.engine import refit_plan


@dataclass(frozen=True)
class Refit:
    """One engine that gets new weights."""

    engine: EngineFile
    planned: PlannedEngine
    builder: TensorRtBuilder
    # The old engine's file, checked; and the ONNX file with the new weights, checked
    plan: Path
    model: Path
    # Whether the new bundle has the engine already, with its weights
    up_to_date: bool


@dataclass
class RefitReport:
    """What a refit did."""

    files: EngineFiles
    written: list[EngineFile] = field(default_factory=list)
    skipped: list[EngineFile] = field(default_factory=list)


def plan_refit(
    old: Bundle, new: Bundle, target: Target, *, graphs: Optional[Sequence[str]] = None, trust_host_code: bool = False
) -> list[Refit]:
    """Everything that is checked before an engine is touched; writes nothing.

    Args:
        old: the bundle with engines.
        new: the same model with other weights: what `motedge export` makes of the fine-tuned checkpoint. Or `old`
            itself: then engines without weights get the ones that they were built from.
        target: whose engines.
        graphs: None: all that were built.
        trust_host_code: whether version-compatible plans are trusted.

    Raises:
        BundleError: no engines, another model or graph, a changed file.
        UsageError: an engine that can't be refitted, a graph that was not built.
        HostError: not the GPU or the version that built it, or a version that refits wrongly; too little memory or
            disk.
    """
    files = require_refittable(old, target, graphs)
    require_same_model(old, new)
    refits = [_plan_one(old, new, target, files, engine, trust_host_code) for engine in wanted_engines(files, graphs)]
    needed = sum(max(r.engine.bytes, _weight_bytes(new, r.engine)) for r in refits if not r.up_to_date)
    require_free(new.root, needed, "the refitted engines")
    return refits


def refit_engines(
    refits: Sequence[Refit], new: Bundle, target: Target, *, trust_host_code: bool = False
) -> RefitReport:
    """Writes what is not up to date, one engine at a time; build.json names each as soon as it is whole.

    Raises:
        BuildError: the library does not take the weights; engines before it stay.
        HostError: the disk is full.
    """
    folder = new.path(f"{ENGINES_FOLDER}/{target.id}")
    known = EngineFiles.read(folder) if (folder / BUILD_FILE).is_file() else EngineFiles(folder, target.id, ())
    report = RefitReport(known)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for refit in refits:
            if refit.up_to_date:
                report.skipped.append(next(e for e in report.files.engines if e.file == refit.planned.file))
                continue
            entry = _write_one(refit, folder, trust_host_code)
            report.files = report.files.with_engine(entry)
            write_json(folder / BUILD_FILE, report.files.to_dict())
            report.written.append(entry)
    finally:
        # Of a first refit that failed, nothing stays
        with contextlib.suppress(OSError):
            folder.rmdir()
    return report


def _plan_one(old: Bundle, new: Bundle, target: Target, files: EngineFiles, engine: EngineFile, trusted: bool) -> Refit:
    model = require_same_graph(old, new, engine.graph, engine.variant)
    options = BuildOptions([engine.graph], engine.variant, None, engine.builder, BuildSettings(**engine.settings))
    builder, (planned,) = plan_engines(new, target, options)
    tensorrt = _tensorrt(builder)
    # Beside the engine there will be the new weights and the plan that is written
    plan = check_engine(
        files,
        engine,
        _host(builder),
        trust_host_code=trusted,
        reserve_bytes=2 * _weight_bytes(new, engine),
    )
    require_own_version(engine, tensorrt)
    if planned.source != engine.source:
        require_exchangeable(engine, tensorrt, target)
        require_own_engine(engine, plan_engines(old, target, options)[1][0].source, old)
    done = planned.up_to_date and not _is_stripped(new, target, planned.file)
    return Refit(engine, planned, tensorrt, plan, model, done)


def _is_stripped(bundle: Bundle, target: Target, file: str) -> bool:
    files = EngineFiles.open(bundle, target.id)
    return any(engine.file == file and engine.weights_stripped for engine in files.engines)


def _tensorrt(builder: Builder) -> TensorRtBuilder:
    if not isinstance(builder, TensorRtBuilder):
        raise UsageError(f"engines of {builder.name} are not refitted", fix="motedge build")
    return builder


def _host(builder: Builder) -> LoadHost:
    return LoadHost(builder.name, builder.version(), this_compute_capability(), available_memory())


def _weight_bytes(new: Bundle, engine: EngineFile) -> int:
    entry = new.variant(engine.graph, engine.variant)
    return sum(new.manifest.files[name].bytes for name in entry.weights)


def _write_one(refit: Refit, folder: Path, trusted: bool) -> EngineFile:
    out, start, old = folder / refit.planned.file, time.perf_counter(), refit.engine
    if old.graph in WEIGHTLESS_GRAPHS:
        copy_file(refit.plan, out)
        return dataclasses.replace(old, file=refit.planned.file, source=refit.planned.source)
    library = refit.builder.library()
    memory = refit_plan(library, refit.plan, refit.model, out, trust_host_code=trusted)
    notes = [f"refitted from the engine of source {old.source[:12]}"]
    again = bool(old.settings.get("refittable"))
    if again and old.weights_stripped and not library.row.include_refit:
        again = False
        notes.append(f"{library.name} {library.version} writes a stripped engine so that it takes weights only once")
    return dataclasses.replace(
        old,
        file=refit.planned.file,
        bytes=out.stat().st_size,
        sha256=sha256_file(out),
        source=refit.planned.source,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - start, 3),
        device_memory_bytes=memory,
        weights_stripped=False,
        refittable=again,
        notes=(*old.notes, *notes),
    )
