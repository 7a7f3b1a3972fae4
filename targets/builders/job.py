"""The build itself: every graph of a bundle that is not up to date becomes an engine, one at a time, each on record.

An engine appears whole, then build.json says that it is there. What is killed in between goes on at that graph.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle
from motedge.errors import BundleError
from motedge.files import sha256_file, write_json
from motedge.memory import available_memory
from motedge.runtime.backends.registry import choose_variant
from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles
from motedge.runtime.engine_files.gate import this_platform
from motedge.runtime.engine_files.record import ENGINES_FOLDER
from motedge.targets.builders import checks
from motedge.targets.builders.builder import Builder, BuildRequest, BuiltEngine
from motedge.targets.builders.child import build_in_child, remove_partials
from motedge.targets.builders.expected import expect_build
from motedge.targets.builders.memory_watch import MemoryPeak
from motedge.targets.builders.registry import builder_for
from motedge.targets.builders.selection import UNCHECKED, Choice, asked_types, choose
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.builders.trt.library import TENSORRT
from motedge.targets.catalog import Target

# Raised when the same inputs come to give another engine or another record
FORMAT = 1
# Graph, phase, share of the graph's build
JobProgress = Callable[[str, str, float], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildOptions:
    """What to build."""

    # None: all graphs
    graphs: Optional[Sequence[str]] = None
    variant: Optional[str] = None
    recipe: Optional[str] = None
    # None: the target's own
    builder: Optional[str] = None
    settings: BuildSettings = field(default_factory=BuildSettings)


@dataclass(frozen=True)
class PlannedEngine:
    """One engine that the bundle should have."""

    choice: Choice
    file: str
    source: str
    asked: dict[str, tuple[str, str]]
    capabilities: tuple[str, ...]
    up_to_date: bool


@dataclass
class BuildReport:
    """What a build did."""

    files: EngineFiles
    built: list[EngineFile] = field(default_factory=list)
    skipped: list[EngineFile] = field(default_factory=list)


def plan_engines(bundle: Bundle, target: Target, options: BuildOptions) -> tuple[Builder, list[PlannedEngine]]:
    """Everything that is checked and decided before anything is built; writes nothing.

    Raises:
        HostError: the library is missing or unsupported, this machine is not the target, too little memory or disk.
        UsageError: an unknown name, a recipe that is illegal there, a setting that the library does not have.
        BundleError: no variant fits.
    """
    builder = builder_for(target, options.builder)
    version = builder.version()
    capabilities = builder.check(target, options.settings)
    choices = _choices(bundle, target, builder, options)
    for doubt in checks.check_recipes(bundle, choices, target, builder.row()):
        _log.warning("%s", doubt)
    known = _known(bundle, target)
    planned = []
    for choice in choices:
        asked = asked_types(bundle, choice)
        settings = _settings(choice, options)
        source = _source(bundle, choice, [builder.name, version, capabilities, settings.to_dict(), asked])
        file = engine_name(choice, capabilities, builder, version)
        done = any(_is_done(known, engine, file, source) for engine in known.engines)
        planned.append(PlannedEngine(choice, file, source, asked, capabilities, done))
    pending = [engine.choice for engine in planned if not engine.up_to_date]
    expected = [expect_build(bundle, choice, builder.name, version) for choice in pending]
    checks.check_disk(bundle, expected)
    for choice, build in zip(pending, expected):
        checks.check_memory(choice, build, available_memory())
    return builder, planned


def build_engines(bundle: Bundle, target: Target, options: BuildOptions, progress: JobProgress) -> BuildReport:
    """Builds what is not up to date.

    Raises:
        BuildError: the library refused a graph; the engines before it stay, and are not built again.
        MotedgeError: see `plan_engines`.
    """
    builder, planned = plan_engines(bundle, target, options)
    files = _known(bundle, target)
    report = BuildReport(files)
    files.folder.mkdir(parents=True, exist_ok=True)
    remove_partials(files.folder)
    try:
        _build_all(bundle, target, options, builder, planned, report, progress)
    finally:
        # Of a first build that failed, nothing stays
        with contextlib.suppress(OSError):
            files.folder.rmdir()
    return report


def _build_all(
    bundle: Bundle,
    target: Target,
    options: BuildOptions,
    builder: Builder,
    planned: Sequence[PlannedEngine],
    report: BuildReport,
    progress: JobProgress,
) -> None:
    version = builder.version()
    for engine in planned:
        files = report.files
        if engine.up_to_date:
            report.skipped.append(next(e for e in files.engines if e.file == engine.file))
            continue
        request = _request(bundle, target, engine, options, files.folder, builder)
        graph = engine.choice.graph
        built, peak, seconds = build_in_child(builder.name, request, functools.partial(progress, graph))
        entry = _entry(engine, request, builder.name, version, built, peak, seconds)
        report.files = files.with_engine(entry)
        write_json(files.folder / BUILD_FILE, report.files.to_dict())
        report.built.append(entry)


def engine_name(choice: Choice, capabilities: Sequence[str], builder: Builder, version: str) -> str:
    """`<graph>.<variant>.sm<NN>.<builder>-<version><suffix>`; "cpu" in place of the SM where there is none."""
    where = "-".join(f"sm{capability.replace('.', '')}" for capability in capabilities) or "cpu"
    return f"{choice.graph}.{choice.variant}.{where}.{builder.name}-{version}{builder.suffix}"


def _choices(bundle: Bundle, target: Target, builder: Builder, options: BuildOptions) -> list[Choice]:
    if builder.name == "onnxruntime":
        graphs = list(bundle.manifest.graphs) if options.graphs is None else options.graphs
        names = {g: choose_variant(bundle, g, variant=options.variant, recipe=options.recipe) for g in graphs}
        return [Choice(graph, name, bundle.variant(graph, name)) for graph, name in names.items()]
    row = builder.row()
    return choose(
        bundle,
        dialects=builder.dialects(),
        max_opset=row.max_opset if row is not None else None,
        compute_capability=target.compute_capability,
        graphs=options.graphs,
        variant=options.variant,
        recipe=options.recipe,
    )


def _settings(choice: Choice, options: BuildOptions) -> BuildSettings:
    return options.settings.without_weights() if choice.graph in WEIGHTLESS_GRAPHS else options.settings


def _known(bundle: Bundle, target: Target) -> EngineFiles:
    """What build.json says so far. A damaged one is as good as none: everything is built anew."""
    folder = bundle.path(f"{ENGINES_FOLDER}/{target.id}")
    if not (folder / BUILD_FILE).is_file():
        return EngineFiles(folder, target.id, ())
    try:
        return EngineFiles.read(folder)
    except BundleError as error:
        _log.warning("%s: building all engines anew", error.what)
        return EngineFiles(folder, target.id, ())


def _is_done(files: EngineFiles, engine: EngineFile, file: str, source: str) -> bool:
    path = files.path(engine)
    return engine.file == file and engine.source == source and path.is_file() and path.stat().st_size == engine.bytes


def _source(bundle: Bundle, choice: Choice, parts: list[Any]) -> str:
    """sha256 over everything that determines an engine."""
    names = [choice.entry.file, bundle.graph(choice.graph).contract, *choice.entry.weights]
    hashes = [bundle.manifest.files[name].sha256 for name in names]
    text = json.dumps([FORMAT, hashes, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _request(
    bundle: Bundle, target: Target, engine: PlannedEngine, options: BuildOptions, folder: Path, builder: Builder
) -> BuildRequest:
    choice = engine.choice
    model = bundle.check_variant(choice.graph, choice.variant)
    device = "-".join(capability.replace(".", "") for capability in engine.capabilities)
    cache = folder / f"timing.sm{device}.{builder.name}-{builder.version()}.cache"
    return BuildRequest(
        graph=choice.graph,
        variant=choice.variant,
        model=model,
        contract=bundle.contract(choice.graph),
        dtype=choice.entry.dtype,
        asked=engine.asked,
        capabilities=engine.capabilities,
        settings=_settings(choice, options),
        out=folder / engine.file,
        # Tactics are timed on the device alone; engines made ahead of time are finished where they run
        timing_cache=cache if builder.name == TENSORRT else None,
        target=target.id,
    )


def _entry(
    engine: PlannedEngine,
    request: BuildRequest,
    builder: str,
    version: str,
    built: BuiltEngine,
    peak: MemoryPeak,
    seconds: float,
) -> EngineFile:
    return EngineFile(
        graph=request.graph,
        variant=request.variant,
        file=engine.file,
        bytes=request.out.stat().st_size,
        sha256=sha256_file(request.out),
        builder=builder,
        builder_version=version,
        compute_capabilities=engine.capabilities,
        platform=this_platform(),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        peak_memory_bytes=peak.resident,
        peak_anonymous_bytes=peak.anonymous,
        device_memory_bytes=built.device_memory_bytes,
        settings=request.settings.to_dict(),
        source=engine.source,
        layers=built.layers,
        raised_precision=built.raised_precision,
        version_compatible=built.version_compatible,
        refittable=built.refittable,
        weights_stripped=built.weights_stripped,
        data_files={name: _data_file(request.out.parent / name) for name in built.data_files},
        notes=(*built.notes, *_unchecked(engine)),
    )


def _unchecked(engine: PlannedEngine) -> list[str]:
    return [UNCHECKED] if engine.choice.entry.recipe is not None and not engine.asked else []


def _data_file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
