"""Refitting on stubs of four TensorRT releases, made from their real API: what is called, written and refused."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builder_graphs import make_bundle
from damage import record_again
from onnx import numpy_helper
from tensorrt_stub import VERSIONS, make_module

from motedge.bundle import Bundle
from motedge.errors import BundleError, HostError, UsageError
from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles
from motedge.runtime.engine_files.gate import this_platform
from motedge.targets.builders.builder import BuildError
from motedge.targets.builders.job import BuildOptions, plan_engines
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.builders.trt import builders as trt_builders
from motedge.targets.builders.trt.library import Library, describe_library
from motedge.targets.catalog import load_target
from motedge.targets.refit import job
from motedge.targets.refit.agreement import structure
from motedge.targets.refit.engine import refit_plan
from motedge.targets.refit.job import plan_refit, refit_engines
from motedge.targets.refit.known_issues import refit_issue

SUPPORTED = [version for version in VERSIONS if version != "8.6"]
OLD, NEW = b"an old plan " * 3000, b"a plan with new weights " * 3000
TARGET = "h200"
REFITTABLE = BuildSettings(refittable=True)
STRIPPED = BuildSettings(strip_weights=True)
BOTH = BuildSettings(refittable=True, strip_weights=True)


@dataclasses.dataclass
class Bench:
    """What the stub is to do, and what it saw."""

    refittable: bool = True
    takes: bool = True
    missing: tuple[str, ...] = ()
    done: bool = True
    loads: bool = True
    trusted: Any = None
    models: list[str] = dataclasses.field(default_factory=list)
    flags: list[str] = dataclasses.field(default_factory=list)


def make_library(version: str, bench: Bench) -> Library:
    made: dict[str, Any] = {}

    def load(own: Any, plan: Any) -> Any:
        bench.trusted = own.engine_host_code_allowed
        return made["api"].ICudaEngine() if bench.loads and bytes(plan) == OLD else None

    def refit(own: Any, model: str) -> bool:
        bench.models.append(model)
        return bench.takes

    def error(own: Any, index: int) -> Any:
        return made["api"].ParserError()

    behaviour = {
        ("Runtime", "deserialize_cuda_engine"): load,
        ("ICudaEngine", "refittable"): lambda own: bench.refittable,
        ("ICudaEngine", "device_memory_size_v2"): 222,
        ("ICudaEngine", "create_serialization_config"): lambda own: made["api"].ISerializationConfig(),
        ("ICudaEngine", "serialize_with_config"): lambda own, config: bytearray(NEW),
        ("ISerializationConfig", "clear_flag"): lambda own, flag: bench.flags.append(f"-{flag.name}"),
        ("ISerializationConfig", "set_flag"): lambda own, flag: bench.flags.append(f"+{flag.name}"),
        ("OnnxParserRefitter", "refit_from_file"): refit,
        ("OnnxParserRefitter", "num_errors"): 1,
        ("OnnxParserRefitter", "get_error"): error,
        ("ParserError", "desc"): lambda own: "no weights of that name",
        ("Refitter", "get_missing_weights"): lambda own: list(bench.missing),
        ("Refitter", "refit_cuda_engine"): lambda own: bench.done,
    }
    made["api"] = make_module(version, behaviour)
    return describe_library("tensorrt", made["api"])


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "old.engine").write_bytes(OLD)
    return tmp_path / "old.engine"


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_plan_gets_new_weights(version: str, plan: Path, tmp_path: Path) -> None:
    bench, out = Bench(), tmp_path / "new.engine"
    assert refit_plan(make_library(version, bench), plan, Path("gen.onnx"), out) == 222
    assert out.read_bytes() == NEW
    assert bench.models == ["gen.onnx"] and not bench.trusted
    again = ["+INCLUDE_REFIT"] if version in ("10.16", "11.4") else []
    assert bench.flags == ["-EXCLUDE_WEIGHTS", *again]


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize(
    ("bench", "error", "message"),
    [
        (Bench(loads=False), BuildError, r"can't load old\.engine"),
        (Bench(refittable=False), UsageError, "is not refittable"),
        (Bench(takes=False), BuildError, r"does not take the weights of gen\.onnx\n.*no weights of that name"),
        (Bench(missing=("a", "b", "c", "d")), BuildError, r"needs more weights(.|\n)*no a, b, c and 1 more"),
        (Bench(done=False), BuildError, "could not be refitted"),
    ],
    ids=["load", "refittable", "names", "missing", "refit"],
)
def test_refused(version: str, bench: Bench, error: type, message: str, plan: Path, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        refit_plan(make_library(version, bench), plan, Path("gen.onnx"), tmp_path / "new.engine")
    assert [path.name for path in tmp_path.iterdir()] == ["old.engine"]


def test_engines_of_one_process_share_a_logger(plan: Path, tmp_path: Path) -> None:
    """TensorRT ignores all but the first; what it said of one engine is not said of the next."""
    bench = Bench(takes=False)
    library = make_library("11.4", bench)
    loggers = []

    class Runtime(library.api.Runtime):  # type: ignore[misc, name-defined]
        def __init__(self, logger: Any) -> None:
            loggers.append(logger)
            logger.log(library.api.ILogger.Severity.ERROR, f"error {len(loggers)}")

    library.api.Runtime = Runtime
    for number in (1, 2):
        with pytest.raises(BuildError) as caught:
            refit_plan(library, plan, Path("gen.onnx"), tmp_path / "o")
        assert f"error {number}" in str(caught.value) and f"error {3 - number}" not in str(caught.value)
    assert loggers[0] is loggers[1]


def test_host_code_runs_only_when_trusted(plan: Path, tmp_path: Path) -> None:
    bench = Bench()
    refit_plan(make_library("11.4", bench), plan, Path("m"), tmp_path / "o", trust_host_code=True)
    assert bench.trusted is True


def _changed(bundle: Bundle, root: Path, by: float = 1.0) -> Bundle:
    """A copy with other weights: those that this small graph holds inside its file."""
    shutil.copytree(bundle.root, root, ignore=shutil.ignore_patterns("engines"))
    file = next(iter(bundle.graph("gen_step").variants.values())).file
    model = onnx.load(str(root / file))
    tensor = next(t for t in model.graph.initializer if t.name == "layers.0.down_proj.weight")
    value = numpy_helper.to_array(tensor) + np.float16(by)
    tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), tensor.name))
    (root / file).write_bytes(model.SerializeToString())
    record_again(root, file)
    return Bundle.open(root)


@dataclasses.dataclass
class Scene:
    old: Bundle
    new: Bundle
    bench: Bench

    def plan(self, **options: Any) -> list[job.Refit]:
        return plan_refit(self.old, self.new, load_target(TARGET), **options)

    def refit(self) -> job.RefitReport:
        return refit_engines(self.plan(), self.new, load_target(TARGET))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return _scene_of("11.4", tmp_path, monkeypatch, REFITTABLE)


def _scene_of(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: BuildSettings) -> Scene:
    bench = Bench()
    library = make_library(version, bench)
    monkeypatch.setattr(trt_builders, "find_library", lambda name: library)
    for module in (trt_builders, job):
        monkeypatch.setattr(module, "this_compute_capability", lambda: "9.0")
    old = make_bundle(tmp_path / "old")
    _record(old, settings)
    return Scene(old, _changed(old, tmp_path / "new"), bench)


def _record(bundle: Bundle, settings: BuildSettings = REFITTABLE, *, graph: str = "gen_step", **changes: Any) -> None:
    """An engine as `motedge build` would have left it, of what the bundle holds."""
    folder = bundle.root / "engines" / TARGET
    folder.mkdir(parents=True, exist_ok=True)
    known = EngineFiles.open(bundle, TARGET).engines if (folder / BUILD_FILE).exists() else ()
    known = tuple(engine for engine in known if engine.graph != graph)
    variant = next(iter(bundle.graph(graph).variants))
    options = BuildOptions([graph], variant, None, "tensorrt", settings)
    builder, (planned,) = plan_engines(bundle, load_target(TARGET), options)
    (folder / planned.file).write_bytes(OLD)
    entry = EngineFile(
        graph=graph,
        variant=variant,
        file=planned.file,
        bytes=len(OLD),
        sha256=hashlib.sha256(OLD).hexdigest(),
        builder="tensorrt",
        builder_version=builder.version(),
        compute_capabilities=("9.0",),
        platform=this_platform(),
        created="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        peak_memory_bytes=1,
        peak_anonymous_bytes=None,
        device_memory_bytes=1,
        settings=settings.to_dict(),
        source=planned.source,
        refittable=settings.refittable or settings.strip_weights,
        weights_stripped=settings.strip_weights,
    )
    files = EngineFiles(folder, TARGET, (*known, dataclasses.replace(entry, **changes)))
    (folder / BUILD_FILE).write_text(json.dumps(files.to_dict()))


def test_engines_go_into_the_bundle_of_the_new_weights(scene: Scene) -> None:
    report = scene.refit()
    (entry,) = report.written
    files = EngineFiles.open(scene.new, TARGET)
    assert files.engines == (entry,) and files.path(entry).read_bytes() == NEW
    assert entry.refittable and not entry.weights_stripped and entry.device_memory_bytes == 222
    assert scene.bench.models == [str(scene.new.path(next(iter(scene.new.graph("gen_step").variants.values())).file))]
    # The old bundle is as it was, and a second run has nothing to do
    (before,) = EngineFiles.open(scene.old, TARGET).engines
    assert before.source != entry.source and EngineFiles.open(scene.old, TARGET).path(before).read_bytes() == OLD
    again = scene.refit()
    assert [e.file for e in again.skipped] == [entry.file] and not again.written
    assert len(scene.bench.models) == 1


@pytest.mark.parametrize("settings", [REFITTABLE, STRIPPED, BOTH])
def test_an_engine_without_weights_goes_along_as_it_is(
    settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    library = make_library("11.4", bench)
    monkeypatch.setattr(trt_builders, "find_library", lambda name: library)
    for module in (trt_builders, job):
        monkeypatch.setattr(module, "this_compute_capability", lambda: "9.0")
    old = make_bundle(tmp_path / "old", solver=True)
    _record(old, settings)
    # What is asked of a build as a whole does not reach a graph without weights
    options = BuildOptions(["solver_step"], None, None, "tensorrt", settings)
    (planned,) = plan_engines(old, load_target(TARGET), options)[1]
    _record(old, BuildSettings(), graph="solver_step")
    record = {engine.graph: engine for engine in EngineFiles.open(old, TARGET).engines}
    assert record["solver_step"].source == planned.source
    new = _changed(old, tmp_path / "new") if settings.refittable else old
    report = refit_engines(plan_refit(old, new, load_target(TARGET)), new, load_target(TARGET))
    files = EngineFiles.open(new, TARGET)
    assert {engine.graph for engine in files.engines} == {"gen_step", "solver_step"}
    assert files.path(files.find("solver_step")).read_bytes() == OLD
    assert files.find("solver_step") == record["solver_step"]
    assert "gen_step" in {engine.graph for engine in report.written}
    assert [model for model in bench.models if "solver_step" in model] == []


def test_a_build_finds_the_refitted_engine_up_to_date(scene: Scene) -> None:
    (entry,) = scene.refit().written
    options = BuildOptions(["gen_step"], entry.variant, settings=BuildSettings(refittable=True))
    assert [engine.up_to_date for engine in plan_engines(scene.new, load_target(TARGET), options)[1]] == [True]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"refittable": False}, UsageError, r"can't be refitted(.|\n)*--refittable, once"),
        ({"builder": "onnxruntime", "refittable": False}, UsageError, "built in seconds"),
        ({"compute_capabilities": ("8.9",)}, HostError, "built for another GPU"),
        ({"builder_version": "11.3.0.1"}, HostError, "another version of tensorrt"),
        ({"sha256": "0" * 64}, BundleError, "differs from what was built"),
        ({"version_compatible": True}, HostError, "not marked as trusted"),
        ({"source": "s"}, BundleError, "was not built from what"),
        ({"variant": "fused-bf16-fp8"}, BundleError, "no variant 'fused-bf16-fp8'"),
    ],
)
def test_engines_that_can_t(scene: Scene, changes: dict[str, Any], error: type, message: str) -> None:
    files = EngineFiles.open(scene.old, TARGET)
    changed = dataclasses.replace(files, engines=(dataclasses.replace(files.engines[0], **changes),))
    (files.folder / BUILD_FILE).write_text(json.dumps(changed.to_dict()))
    with pytest.raises(error, match=message):
        scene.plan()
    assert not (scene.new.root / "engines").exists()


def test_another_model_or_graph(scene: Scene, tmp_path: Path) -> None:
    manifest = scene.new.manifest
    config = {"hidden_size": 7}
    other = Bundle(scene.new.root, dataclasses.replace(manifest, model={**manifest.model, "config": config}))
    with pytest.raises(BundleError, match=r"another model configuration(.|\n)*hidden_size = 7"):
        plan_refit(scene.old, other, load_target(TARGET))
    with pytest.raises(UsageError, match="no engine of graph 'gen_stp'"):
        scene.plan(graphs=["gen_stp"])
    file = next(iter(scene.new.graph("gen_step").variants.values())).file
    model = onnx.load(str(scene.new.path(file)))
    before = structure(scene.new.path(file))
    model.graph.node[0].name = "renamed"
    scene.new.path(file).write_bytes(model.SerializeToString())
    record_again(scene.new.root, file)
    assert structure(scene.new.path(file)) != before
    with pytest.raises(BundleError, match="is not the one that the engine was built from"):
        plan_refit(scene.old, Bundle.open(scene.new.root), load_target(TARGET))


def test_a_version_compatible_engine_is_refitted_by_its_own_version(scene: Scene) -> None:
    _record(scene.old, builder_version="10.16.1.11", version_compatible=True)
    with pytest.raises(HostError, match=r"another version of tensorrt(.|\n)*by the version that built it"):
        scene.plan(trust_host_code=True)


def test_an_engine_that_was_stripped_alone_takes_its_own_weights_only(scene: Scene) -> None:
    _record(scene.old, STRIPPED)
    # Other weights: TensorRT would take them, and compute something else
    with pytest.raises(UsageError, match=r"that it was built from alone(.|\n)*REFIT_IDENTICAL"):
        scene.plan()
    assert not scene.bench.models
    target = load_target(TARGET)
    report = refit_engines(plan_refit(scene.old, scene.old, target), scene.old, target)
    (entry,) = report.written
    assert not entry.weights_stripped and not entry.refittable
    assert EngineFiles.open(scene.old, TARGET).path(entry).read_bytes() == NEW
    assert scene.bench.models == [str(scene.old.path(next(iter(scene.old.graph("gen_step").variants.values())).file))]
    # Filled: nothing more to do, and a build takes it for what it was asked for
    assert [refit.up_to_date for refit in plan_refit(scene.old, scene.old, target)] == [True]
    options = BuildOptions(["gen_step"], entry.variant, settings=STRIPPED)
    assert [engine.up_to_date for engine in plan_engines(scene.old, target, options)[1]] == [True]
    with pytest.raises(UsageError, match="that it was built from alone"):
        scene.plan()


@pytest.mark.parametrize(("version", "again"), [("10.3", False), ("10.13", False), ("10.16", True), ("11.4", True)])
def test_whether_a_filled_engine_takes_weights_again(
    version: str, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = _scene_of(version, tmp_path, monkeypatch, BOTH).old
    target = load_target(TARGET)
    new = _changed(old, tmp_path / "new2")
    (entry,) = refit_engines(plan_refit(old, new, target), new, target).written
    assert entry.refittable is again and not entry.weights_stripped
    assert any("only once" in note for note in entry.notes) is not again
    third = _changed(old, tmp_path / "third", 2.0)
    if again:
        # The stub loads the old plan alone
        assert not plan_refit(new, third, target)[0].up_to_date
    else:
        with pytest.raises(UsageError, match="has taken weights once"):
            plan_refit(new, third, target)
    # From the stripped engine it goes on
    assert not plan_refit(old, third, target)[0].up_to_date


def test_a_release_that_refits_wrongly(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refit_issue("tensorrt", "11.3.0.14") and not refit_issue("tensorrt", "11.4.1.5")
    assert not refit_issue("tensorrt", "10.3.0.30") and not refit_issue("tensorrt-rtx", "11.3")
    library = trt_builders.find_library("tensorrt")
    faulty = dataclasses.replace(library, version="11.3.0.14")
    monkeypatch.setattr(trt_builders, "find_library", lambda name: faulty)
    _record(scene.old)
    with pytest.raises(HostError, match=r"does not refit reliably(.|\n)*bias"):
        scene.plan()
    # Its own weights are no such case
    _record(scene.old, STRIPPED)
    assert not plan_refit(scene.old, scene.old, load_target(TARGET))[0].up_to_date


def test_memory_and_disk_are_asked_before(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "available_memory", lambda: 10)
    with pytest.raises(HostError, match="too little free memory"):
        scene.plan()
    monkeypatch.setattr(job, "available_memory", lambda: None)

    def full(*args: Any) -> None:
        raise HostError(f"too little disk space for {args[2]}")

    monkeypatch.setattr(job, "require_free", full)
    with pytest.raises(HostError, match="disk space for the refitted engines"):
        scene.plan()
    assert not (scene.new.root / "engines").exists()


def test_a_full_disk_leaves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: Any, data: Any) -> None:
        stream.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("motedge.targets.refit.engine.write_chunks", full)
    with pytest.raises(HostError, match="the disk is full"):
        scene.refit()
    assert not (scene.new.root / "engines" / TARGET).exists()


def test_shapes_inside_a_graph_are_no_weights(scene: Scene) -> None:
    file = scene.new.path(next(iter(scene.new.graph("gen_step").variants.values())).file)
    model = onnx.load(str(file))
    for value in (4, 5):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), "rows"))
        file.write_bytes(model.SerializeToString())
        digest = structure(file)
        del model.graph.initializer[-1]
        if value == 4:
            first = digest
    assert first != digest


def test_a_failed_refit_leaves_nothing(scene: Scene) -> None:
    scene.bench.takes = False
    with pytest.raises(BuildError):
        scene.refit()
    assert not list((scene.new.root / "engines").rglob("*.engine"))
    assert not (scene.new.root / "engines" / TARGET).exists()
