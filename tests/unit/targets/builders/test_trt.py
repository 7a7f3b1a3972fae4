"""The TensorRT builder on stubs of four releases: it runs through, and uses what each has and nothing else."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path

import pytest
from builder_graphs import ASKED, make_request
from tensorrt_stub import VERSIONS, make_module
from tensorrt_stub_scene import PLAN, Stage, make_library

from motedge.errors import BundleError, HostError, UsageError
from motedge.targets.builders.builder import BuildError, BuildRequest, BuiltEngine
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.builders.trt import builders
from motedge.targets.builders.trt.build import build_plan
from motedge.targets.builders.trt.builders import TensorRtBuilder
from motedge.targets.builders.trt.library import Library, describe_library, find_library
from motedge.targets.catalog import load_target

SUPPORTED = [version for version in VERSIONS if version != "8.6"]
EVERYTHING = BuildSettings(
    optimization_level=2,
    workspace_gb=1.5,
    weight_streaming=True,
    refittable=True,
    strip_weights=True,
    version_compatible=True,
)


def _build(version: str, request: BuildRequest, stage: Stage, **kwargs: bool) -> tuple[BuiltEngine, list[tuple]]:
    steps: list[tuple] = []
    library = describe_library("tensorrt", make_library(version, stage))
    built = build_plan(library, request, lambda *step: steps.append(step), inspect=kwargs.get("inspect", True))
    return built, steps


@pytest.mark.parametrize("version", SUPPORTED)
def test_builds(version: str, tmp_path: Path) -> None:
    stage = Stage()
    built, steps = _build(version, make_request(tmp_path), stage)
    assert (tmp_path / "gen_step.engine").read_bytes() == PLAN
    assert not list(tmp_path.glob("*.partial"))
    assert stage.shapes == {"x": ((2, 8), (4, 8), (16, 8))}
    assert stage.profiles == 1
    # Bit 1 is STRONGLY_TYPED in 10.x; 11 types strongly in any case and needs no flag
    assert stage.network_flags == (0 if version == "11.4" else 2)
    assert stage.builder_flags == []
    assert stage.streamed == (version != "10.3")
    assert stage.config.profiling_verbosity.name == "DETAILED"
    assert built.device_memory_bytes == 222
    assert built.layers["computing"] == {"matrix_multiply fp16 x fp16": 2}
    assert built.layers["engine"]["tensors"] == ["x", "z"]
    assert [layer["inputs"] for layer in built.layers["engine"]["detail"]] == [["fp16", "fp16"], ["fp32", "fp32"]]
    # What the engine itself chose is told apart from what the graph says
    assert [(r["layer"], r["where"]) for r in built.raised_precision] == [
        ("layers.0.down_proj/MatMul", "the engine chose it")
    ]
    assert ("Building engine", 0.75) in steps


def test_single_tokens_have_a_profile_of_their_own(tmp_path: Path) -> None:
    """Graph und reads prompts and writes tokens."""
    stage, request = Stage(), make_request(tmp_path)
    rows = tuple(dataclasses.replace(spec, dims=("S", *spec.dims[1:])) for spec in request.contract.inputs)
    contract = dataclasses.replace(request.contract, graph="und", inputs=rows, profile={"S": (1, 4, 16)})
    _build("10.13", dataclasses.replace(request, graph="und", contract=contract), stage)
    assert stage.profiles == 2
    assert stage.shapes == {"x": ((1, 8), (1, 8), (2, 8))}


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_setting_exists_in_every_version(version: str, tmp_path: Path) -> None:
    stage = Stage()
    request = dataclasses.replace(make_request(tmp_path), settings=EVERYTHING)
    built, _ = _build(version, request, stage)
    assert set(stage.builder_flags) == {"WEIGHT_STREAMING", "STRIP_PLAN", "REFIT", "VERSION_COMPATIBLE"}
    assert stage.pools == {"WORKSPACE": 1_500_000_000}
    assert stage.config.builder_optimization_level == 2
    assert built.weights_stripped
    assert built.refittable
    assert built.version_compatible
    # Without its weights it can't be loaded to be asked
    assert built.device_memory_bytes is None


def test_stripped_weights_that_come_back_as_they_were(tmp_path: Path) -> None:
    stage = Stage()
    request = dataclasses.replace(make_request(tmp_path), settings=BuildSettings(strip_weights=True))
    _build("10.16", request, stage)
    assert stage.builder_flags == ["STRIP_PLAN", "REFIT_IDENTICAL"]


@pytest.mark.parametrize("version", SUPPORTED)
def test_timing_cache_is_kept_and_read_again(version: str, tmp_path: Path) -> None:
    stage, cache = Stage(), tmp_path / "timing.cache"
    request = dataclasses.replace(make_request(tmp_path), timing_cache=cache)
    _build(version, request, stage)
    assert cache.read_bytes() == b"tactics of the stub"
    _build(version, request, stage)
    assert stage.caches_read == [b"", b"tactics of the stub"]


def test_timing_cache_of_another_gpu_is_not_used(tmp_path: Path) -> None:
    stage, cache = Stage(cache_fits=False), tmp_path / "timing.cache"
    cache.write_bytes(b"of another GPU")
    _build("10.16", dataclasses.replace(make_request(tmp_path), timing_cache=cache), stage)
    assert stage.caches_read == [b"of another GPU", b""]
    assert cache.read_bytes() == b"tactics of the stub"


def test_layers_in_a_higher_precision_than_asked(tmp_path: Path) -> None:
    """Without a GPU too: the network's own types tell it."""
    quantized, _ = _build("10.16", make_request(tmp_path, ASKED, quantized=True), Stage(loads=False))
    assert quantized.layers["computing"] == {"matrix_multiply fp8 x fp8": 1, "matrix_multiply fp16 x fp16": 1}
    assert quantized.raised_precision == ()
    assert quantized.device_memory_bytes is None
    # The recipe wants FP8, the graph has none
    missed, _ = _build("10.16", make_request(tmp_path, ASKED), Stage(loads=False))
    assert [(r["layer"], r["asked"], r["got"]) for r in missed.raised_precision] == [
        ("layers.0.up_proj/MatMul", "fp8 x fp8", "fp16 x fp16")
    ]
    wide, _ = _build("10.16", make_request(tmp_path, wide_down=True), Stage(loads=False))
    assert [(r["layer"], r["asked"], r["got"]) for r in wide.raised_precision] == [
        ("layers.0.down_proj/MatMul", "fp16 x fp16", "fp32 x fp32")
    ]
    gone, _ = _build("10.16", make_request(tmp_path, {"layers.7.up_proj": ("fp8", "fp8")}), Stage(loads=False))
    assert gone.notes == ("the network has no projection layers.7.up_proj, which the recipe names",)


@pytest.mark.parametrize("version", SUPPORTED)
def test_fused_graphs(version: str, tmp_path: Path) -> None:
    request = make_request(tmp_path, fused=True)
    if version in ("10.3", "10.13"):
        with pytest.raises(BuildError, match=r"n1/Attention Attention: no importer for Attention") as caught:
            _build(version, request, Stage())
        assert "gen_step" in str(caught.value)
        assert not (tmp_path / "gen_step.engine").exists()
    else:
        built, _ = _build(version, request, Stage())
        # One head has no kernel of its own: only that attention may be taken apart, and build.json says so
        assert built.notes == ("n1/Attention: decomposed, since no kernel computes 1 head(s) of 8",)


@pytest.mark.parametrize("version", SUPPORTED)
def test_refusal_names_the_graph_and_leaves_nothing(version: str, tmp_path: Path) -> None:
    stage = Stage(refuse="Error Code 10: Could not find any implementation for node layers.0.up_proj/MatMul")
    with pytest.raises(BuildError, match=r"layers\.0\.up_proj/MatMul") as caught:
        _build(version, make_request(tmp_path), stage)
    assert "gen_step" in caught.value.what
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gen_step.onnx"]


def test_an_engine_that_memory_does_not_take_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motedge.targets.builders.trt.build.available_memory", lambda: 1000)
    built, _ = _build("10.3", make_request(tmp_path), Stage())
    assert built.device_memory_bytes is None
    assert built.notes == ("the engine was not asked for its layers: 1.00 kB free, 76.00 kB needed",)


def test_refused_formats_and_memory_say_so(tmp_path: Path) -> None:
    text = "Cannot compile for target(s) sm86, because the model contains HW-specific datatypes"
    with pytest.raises(BuildError, match="lacks a number format"):
        _build("11.4", make_request(tmp_path), Stage(refuse=text))
    with pytest.raises(BuildError, match="ran out of memory"):
        _build("10.3", make_request(tmp_path), Stage(refuse="Requested 3 GB: out of memory"))


def test_a_graph_outside_its_contract(tmp_path: Path) -> None:
    request = make_request(tmp_path)
    wider = dataclasses.replace(request.contract.inputs[0], dims=("N", 16))
    contract = dataclasses.replace(request.contract, inputs=(wider,))
    with pytest.raises(BundleError, match="shape of 'x'"):
        _build("10.16", dataclasses.replace(request, contract=contract), Stage())
    renamed = dataclasses.replace(request.contract.inputs[0], name="other")
    contract = dataclasses.replace(request.contract, inputs=(renamed,))
    with pytest.raises(BundleError, match="inputs"):
        _build("10.16", dataclasses.replace(request, contract=contract), Stage())


def test_settings_that_a_library_lacks(tmp_path: Path) -> None:
    stage = Stage()
    library = describe_library("tensorrt", make_library("10.16", stage))
    bare = Library("tensorrt", library.api, library.version, dataclasses.replace(library.row, weight_streaming=False))
    request = dataclasses.replace(make_request(tmp_path), settings=BuildSettings(weight_streaming=True))
    with pytest.raises(UsageError, match="--weight-streaming"):
        build_plan(bare, request, lambda *step: None, inspect=False)


def test_versions_that_are_not_supported() -> None:
    old = TensorRtBuilder(describe_library("tensorrt", make_module("8.6", {})))
    for target in ("jetson-orin-nano-8gb", "rtx-4090"):
        with pytest.raises(HostError, match="too old to build for a device"):
            old.check(load_target(target), BuildSettings())
    newer = types.ModuleType("tensorrt")
    newer.__version__ = "12.1.0"  # type: ignore[attr-defined]
    with pytest.raises(HostError, match=r"TensorRT 12.1.0 is not supported"):
        describe_library("tensorrt", newer)
    with pytest.raises(HostError, match="does not say its version"):
        describe_library("tensorrt", types.ModuleType("tensorrt"))


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(HostError, match=r"tensorrt is (not installed|installed but does not load)"):
        find_library("tensorrt")


def test_the_stub_is_as_strict_as_the_real_module() -> None:
    """Else the tests above would prove nothing."""
    old = make_module("10.3", {})
    config = old.IBuilderConfig()
    with pytest.raises(AttributeError):
        config.tiling_optimization_level = 1
    with pytest.raises(AttributeError):
        _ = old.Builder(None).build_serialized_network_to_stream
    with pytest.raises(AttributeError):
        old.ICudaEngine().device_memory_size = 3
    with pytest.raises(TypeError):
        config.set_flag()
    with pytest.raises(AttributeError):
        _ = make_module("11.4", {}).BuilderFlag.FP16


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_the_release_for_tests_builds_weakly_typed_networks(dtype: str, tmp_path: Path) -> None:
    stage, request = Stage(), make_request(tmp_path, wide_down=True)
    api = make_library("8.6", stage)
    library = describe_library("tensorrt", api)
    built = build_plan(library, dataclasses.replace(request, dtype=dtype), lambda *step: None, inspect=True)
    assert (tmp_path / "gen_step.engine").read_bytes() == PLAN
    assert stage.tactic_sources == 0
    held = {layer.name for layer in stage.layers if layer.precision == api.DataType.FLOAT}
    if dtype == "fp32":
        assert stage.builder_flags == [] and held == set() and built.notes == ()
        return
    assert stage.builder_flags == ["FP16", "PREFER_PRECISION_CONSTRAINTS"]
    # What the graph has in fp32, and nothing else
    assert "layers.0.down_proj/MatMul" in held and "layers.0.up_proj/MatMul" not in held
    assert stage.output_types == dict.fromkeys(held, ("FLOAT",))
    assert built.notes == (f"weakly typed: {len(held)} layers are held in fp32, in which the graph has them",)


@pytest.mark.parametrize("version", SUPPORTED)
def test_no_other_release_is_held_or_left_without_tactics(version: str, tmp_path: Path) -> None:
    stage = Stage()
    _build(version, make_request(tmp_path, wide_down=True), stage)
    assert stage.tactic_sources is None and stage.output_types == {}


def test_the_release_for_tests_is_tried_on_a_server_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(builders, "this_compute_capability", lambda: "9.0")
    old = TensorRtBuilder(describe_library("tensorrt", make_module("8.6", {})))
    assert old.check(load_target("h200"), BuildSettings()) == ("9.0",)
    assert "weakly typed" in caplog.text
    assert old.dialects() == ("primitive",) and old.row().max_opset == 17
