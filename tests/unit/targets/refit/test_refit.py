"""Refitting on stubs of four TensorRT releases, made from their real API: what is called, written and refused."""

from __future__ import annotations

import dataclasses
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
from motedge.cli.main import main
from motedge.errors import BundleError, HostError, UsageError
from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles
from motedge.runtime.engine_files.gate import this_platform
from motedge.targets.builders.builder import BuildError
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.builders.trt import builders as trt_builders
from motedge.targets.builders.trt.library import Library, describe_library
from motedge.targets.catalog import load_target
from motedge.targets.refit import job
from motedge.targets.refit.agreement import structure
from motedge.targets.refit.engine import refit_plan
from motedge.targets.refit.job import plan_refit, refit_engines

SUPPORTED = [version for version in VERSIONS if version != "8.6"]
OLD, NEW = b"an old plan " * 3000, b"a plan with new weights " * 3000
TARGET = "h200"


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


def test_host_code_runs_only_when_trusted(plan: Path, tmp_path: Path) -> None:
    bench = Bench()
    refit_plan(make_library("11.4", bench), plan, Path("m"), tmp_path / "o", trust_host_code=True)
    assert bench.trusted is True


def _changed(bundle: Bundle, root: Path) -> Bundle:
    """A copy with other weights: those that this small graph holds inside its file."""
    shutil.copytree(bundle.root, root, ignore=shutil.ignore_patterns("engines"))
    file = next(iter(bundle.graph("gen_step").variants.values())).file
    model = onnx.load(str(root / file))
    tensor = next(t for t in model.graph.initializer if t.name == "layers.0.down_proj.weight")
    value = numpy_helper.to_array(tensor) + np.float16(1)
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
    bench = Bench()
    library = make_library("11.4", bench)
    monkeypatch.setattr(trt_builders, "find_library", lambda name: library)
    for module in (trt_builders, job):
        monkeypatch.setattr(module, "this_compute_capability", lambda: "9.0")
    old = make_bundle(tmp_path / "old")
    _record(old, library.version)
    return Scene(old, _changed(old, tmp_path / "new"), bench)


def _record(bundle: Bundle, version: str, **changes: Any) -> None:
    folder = bundle.root / "engines" / TARGET
    folder.mkdir(parents=True, exist_ok=True)
    variant = next(iter(bundle.graph("gen_step").variants))
    name = f"gen_step.{variant}.sm90.tensorrt-{version}.engine"
    (folder / name).write_bytes(OLD)
    entry = EngineFile(
        graph="gen_step",
        variant=variant,
        file=name,
        bytes=len(OLD),
        sha256=hashlib.sha256(OLD).hexdigest(),
        builder="tensorrt",
        builder_version=version,
        compute_capabilities=("9.0",),
        platform=this_platform(),
        created="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        peak_memory_bytes=1,
        peak_anonymous_bytes=None,
        device_memory_bytes=1,
        settings=BuildSettings(refittable=True).to_dict(),
        source="s",
        refittable=True,
    )
    files = EngineFiles(folder, TARGET, (dataclasses.replace(entry, **changes),))
    (folder / BUILD_FILE).write_text(json.dumps(files.to_dict()))


def test_engines_go_into_the_bundle_of_the_new_weights(scene: Scene) -> None:
    report = scene.refit()
    (entry,) = report.written
    files = EngineFiles.open(scene.new, TARGET)
    assert files.engines == (entry,) and files.path(entry).read_bytes() == NEW
    assert entry.refittable and not entry.weights_stripped and entry.device_memory_bytes == 222
    assert scene.bench.models == [str(scene.new.path(next(iter(scene.new.graph("gen_step").variants.values())).file))]
    # The old bundle is as it was, and a second run has nothing to do
    assert EngineFiles.open(scene.old, TARGET).engines[0].source == "s"
    again = scene.refit()
    assert [e.file for e in again.skipped] == [entry.file] and not again.written
    assert len(scene.bench.models) == 1


def test_a_build_finds_the_refitted_engine_up_to_date(scene: Scene) -> None:
    from motedge.targets.builders.job import BuildOptions, plan_engines

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


def test_a_failed_refit_leaves_nothing(scene: Scene) -> None:
    scene.bench.takes = False
    with pytest.raises(BuildError):
        scene.refit()
    assert not list((scene.new.root / "engines").rglob("*.engine"))
    assert not (scene.new.root / "engines" / TARGET).exists()


def test_the_command(scene: Scene, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["refit", str(scene.old.root), "--weights", str(scene.new.root), "--target", TARGET]
    assert main([*command, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("to refit    gen_step.")
    assert main([*command, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["written"]) == 1
    assert main(command) == 0
    assert "up to date" in capsys.readouterr().out
    assert main([*command, "--out", "x"]) == 2
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").write_bytes(b"")
    assert main(["refit", str(scene.old.root), "--weights", str(tmp_path / "dcp"), "--target", TARGET]) == 2
    assert "motedge checkpoint convert" in capsys.readouterr().err
    assert main(["refit", str(scene.old.root), "--weights", "lora.safetensors", "--target", TARGET]) == 2
    assert "motedge checkpoint merge" in capsys.readouterr().err
    assert main(["refit", str(scene.old.root), "--weights", str(tmp_path), "--target", TARGET]) == 2
    assert main(["refit", str(scene.old.root), "--weights", str(scene.new.root), "--target", "jetson-thor"]) == 2
