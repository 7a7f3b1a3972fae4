"""The build job: what is checked before, what is skipped, what an interruption leaves, what build.json says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builder_graphs import make_bundle

from motedge.bundle import Bundle
from motedge.errors import BundleError, HostError, UsageError
from motedge.files import sha256_file
from motedge.runtime.backends.tensorrt.versions import TensorRtVersion, find_version
from motedge.runtime.engine_files import BUILD_FILE, EngineFiles
from motedge.targets.builders import job, selection
from motedge.targets.builders.builder import BuildError, BuildRequest, BuiltEngine
from motedge.targets.builders.job import BuildOptions, build_engines, plan_engines
from motedge.targets.builders.memory_watch import MemoryPeak
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.catalog import Target, load_target


class FakeBuilder:
    """A builder of which the tests say what it does."""

    name = "tensorrt-rtx"
    suffix = ".engine"

    def __init__(self) -> None:
        self.release, self.tensorrt = "1.7.1", "11.4"
        self.takes = ("fused", "primitive")
        self.requests: list[BuildRequest] = []
        self.fail: Exception | None = None

    def version(self) -> str:
        return self.release

    def dialects(self) -> tuple[str, ...]:
        return self.takes

    def row(self) -> TensorRtVersion | None:
        return find_version(self.tensorrt)

    def check(self, target: Target, settings: BuildSettings) -> tuple[str, ...]:
        return (f"{target.compute_capability:.1f}",)

    def run(self, name: str, request: BuildRequest, progress: Callable) -> tuple[BuiltEngine, MemoryPeak, float]:
        self.requests.append(request)
        progress("building", 0.5)
        if self.fail is not None:
            raise self.fail
        request.out.write_bytes(f"{request.variant} {len(self.requests)}".encode())
        return BuiltEngine(None, {"count": 3}), MemoryPeak(2_000, 1_000), 1.5


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    builder = FakeBuilder()
    monkeypatch.setattr(job, "builder_for", lambda target, name: builder)
    monkeypatch.setattr(job, "build_in_child", builder.run)
    return builder


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", ("primitive-fp16", "fused-fp16", "fused-fp16-fp8"))


TARGET = load_target("rtx-4090")


def _build(bundle: Bundle, **options: Any) -> job.BuildReport:
    return build_engines(bundle, TARGET, BuildOptions(**options), lambda *step: None)


def test_builds_records_and_skips(bundle: Bundle, fake: FakeBuilder) -> None:
    report = _build(bundle)
    (engine,) = report.built
    assert engine.file == "gen_step.fused-fp16.sm89.tensorrt-rtx-1.7.1.engine"
    path = bundle.root / "engines/rtx-4090" / engine.file
    assert (engine.bytes, engine.sha256) == (path.stat().st_size, sha256_file(path))
    assert (engine.peak_memory_bytes, engine.peak_anonymous_bytes, engine.seconds) == (2_000, 1_000, 1.5)
    assert EngineFiles.open(bundle, "rtx-4090").engines == (engine,)
    again = _build(bundle)
    assert (again.built, again.skipped) == ([], [engine])
    assert len(fake.requests) == 1
    # Engines are no part of the manifest: no stage changes another's file
    assert "engines" not in (bundle.root / "manifest.json").read_text()


@pytest.mark.parametrize("change", ["setting", "version", "graph", "missing", "shorter"])
def test_what_changed_is_built_again(bundle: Bundle, fake: FakeBuilder, change: str) -> None:
    (engine,) = _build(bundle).built
    path, options = bundle.root / "engines/rtx-4090" / engine.file, {}
    if change == "setting":
        options["settings"] = BuildSettings(optimization_level=1)
    elif change == "version":
        fake.release = "1.8.0"
    elif change == "graph":
        file = bundle.variant("gen_step", "fused-fp16").file
        entry = dataclasses.replace(bundle.manifest.files[file], sha256="1" * 64)
        manifest = dataclasses.replace(bundle.manifest, files={**bundle.manifest.files, file: entry})
        bundle = Bundle(bundle.root, manifest)
        with pytest.raises(BundleError, match="differs from what was exported"):
            _build(bundle)
        return
    elif change == "missing":
        path.unlink()
    else:
        path.write_bytes(b"x")
    report = _build(bundle, **options)
    assert len(report.built) == 1
    # An engine of another release stays beside it; any other is replaced
    assert len(report.files.engines) == (2 if change == "version" else 1)


def test_a_damaged_record_means_building_anew(bundle: Bundle, fake: FakeBuilder) -> None:
    _build(bundle)
    (bundle.root / "engines/rtx-4090" / BUILD_FILE).write_text("{")
    assert len(_build(bundle).built) == 1


def test_a_failed_first_build_leaves_no_folder(bundle: Bundle, fake: FakeBuilder) -> None:
    fake.fail = BuildError("no")
    with pytest.raises(BuildError):
        _build(bundle)
    assert not (bundle.root / "engines/rtx-4090").exists()


def test_engines_before_a_failure_stay(bundle: Bundle, fake: FakeBuilder) -> None:
    (first,) = _build(bundle, variant="primitive-fp16").built
    leftover = bundle.root / "engines/rtx-4090/other.engine.partial"
    leftover.write_bytes(b"half")
    fake.fail = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        _build(bundle)
    assert not leftover.exists()
    fake.fail = None
    report = _build(bundle, variant="primitive-fp16")
    assert report.skipped == [first]
    assert len(fake.requests) == 2


def test_choice_of_variants(bundle: Bundle, fake: FakeBuilder) -> None:
    def chosen(**options: Any) -> str:
        _, (planned,) = plan_engines(bundle, TARGET, BuildOptions(**options))
        return planned.choice.variant

    assert chosen() == "fused-fp16"
    assert chosen(recipe="fp8") == "fused-fp16-fp8"
    assert chosen(variant="primitive-fp16") == "primitive-fp16"
    fake.takes = ("primitive",)
    assert chosen() == "primitive-fp16"
    with pytest.raises(UsageError, match="lacks the fused operators"):
        chosen(variant="fused-fp16")
    with pytest.raises(BundleError, match="has no variant of graph 'gen_step'"):
        chosen(recipe="fp8")
    with pytest.raises(UsageError, match="did you mean 'fused-fp16'"):
        chosen(variant="fuse-fp16")
    with pytest.raises(UsageError, match="did you mean 'gen_step'"):
        chosen(graphs=["gen-step"])
    with pytest.raises(UsageError, match="no graph of the bundle is quantized"):
        chosen(recipe="nvfp4")


def test_what_the_recipe_asks_of_each_projection(bundle: Bundle) -> None:
    choice = selection.Choice("gen_step", "fused-fp16-fp8", bundle.variant("gen_step", "fused-fp16-fp8"))
    # fp8's built-in recipe: every projection of the layers
    asked = {"layers.0.up_proj": ("fp8", "fp8"), "layers.0.down_proj": ("fp8", "fp8")}
    assert selection.asked_types(bundle, choice) == asked
    kept = bundle.root / "calibration/fp8/recipe.toml"
    kept.parent.mkdir(parents=True)
    rule = '[[gen_step.rules]]\nmatch = "*down_proj"\nscheme = "int4-w4a16"\n'
    kept.write_text(
        f'schema = "motedge.recipe/v1"\nid = "fp8"\nrevision = 1\nsummary = "s"\n[gen_step]\ndefault = "none"\n{rule}'
    )
    assert selection.asked_types(bundle, choice) == {"layers.0.down_proj": ("fp16", "int4")}


def test_a_recipe_that_the_target_can_not_run(bundle: Bundle, fake: FakeBuilder) -> None:
    with pytest.raises(UsageError, match="fp8"):
        plan_engines(bundle, load_target("jetson-orin-nano-8gb"), BuildOptions(recipe="fp8"))
    assert not (bundle.root / "engines").exists()


def test_a_format_that_the_library_lacks(tmp_path: Path, fake: FakeBuilder, caplog: pytest.LogCaptureFixture) -> None:
    bundle = make_bundle(tmp_path / "four", ("primitive-fp16-nvfp4", "primitive-fp16-int4-awq"))
    target = load_target("jetson-agx-thor-t5000")
    fake.tensorrt, fake.takes = "10.3.0.30", ("primitive",)
    with pytest.raises(UsageError, match=r"TensorRT 10\.3 has no nvfp4"):
        plan_engines(bundle, target, BuildOptions(recipe="nvfp4"))
    # INT4 came to ONNX with opset 21, to TensorRT with 10.0, whose list of opsets ends at 20
    plan_engines(bundle, target, BuildOptions(recipe="int4-awq"))
    assert "is of opset 23; TensorRT 10.3 says that it knows up to 20" in caplog.text


def test_too_little_memory_or_disk_before_anything_starts(
    bundle: Bundle, fake: FakeBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("motedge.files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(HostError, match="too little disk space for the engines"):
        _build(bundle)
    monkeypatch.undo()
    monkeypatch.setattr(job, "builder_for", lambda target, name: fake)
    monkeypatch.setattr(job, "available_memory", lambda: 300_000_000)
    with pytest.raises(HostError, match="too little memory to build graph 'gen_step'"):
        _build(bundle)
    assert fake.requests == []
    assert not (bundle.root / "engines").exists()


def test_record_is_json_with_a_schema(bundle: Bundle, fake: FakeBuilder) -> None:
    _build(bundle)
    raw = json.loads((bundle.root / "engines/rtx-4090" / BUILD_FILE).read_text())
    assert raw["schema"] == "motedge.engine/v1"
    assert raw["target"] == "rtx-4090"
    wanted = {
        *("graph", "variant", "file", "bytes", "sha256", "builder", "builder_version", "compute_capabilities"),
        *("platform", "created", "seconds", "peak_memory_bytes", "device_memory_bytes", "settings", "source", "layers"),
        *("raised_precision", "version_compatible", "refittable", "weights_stripped"),
    }
    assert wanted <= set(raw["engines"][0])
