"""Which engine of a bundle is loaded on a GPU: by target, variant and recipe, and why none is."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tensorrt_runtime_stub import make_plan, stage_of, stub_library

from motedge.bundle import Bundle
from motedge.errors import BundleError, HostError, UsageError
from motedge.files import write_json
from motedge.runtime.backends.device_registry import open_device_engine
from motedge.runtime.backends.tensorrt.find import VariantName, open_tensorrt_engine
from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles
from motedge.runtime.engine_files.gate import this_platform
from motedge.runtime.policy import GpuOptions

DIMS = {"T": 3, "A": 5, "U": 6, "N": 17}
GRAPHS = ("und_prefill", "gen_step", "vae_encoder", "solver_step")
Build = Callable[..., EngineFile]


@pytest.fixture
def build(bench: Any) -> Build:
    """Puts an engine of gen_step into the bundle, as `motedge build` would."""

    def make(target: str, variant: str = "primitive-fp32", **changes: Any) -> EngineFile:
        folder = bench.bundle / "engines" / target
        content = make_plan(
            bench.bundle / "graphs/gen_step.primitive-fp32.onnx", bench.model.contracts["gen_step"], variant=variant
        )
        fields: dict[str, Any] = {
            "graph": "gen_step",
            "variant": variant,
            "file": f"gen_step.{variant}.engine",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "builder": "tensorrt",
            "builder_version": stub_library("10.13", bench.cuda).version,
            "compute_capabilities": ("9.0",),
            "platform": this_platform(),
            "created": "2026-11-01T00:00:00+00:00",
            "seconds": 1.0,
            "peak_memory_bytes": 1,
            "peak_anonymous_bytes": None,
            "device_memory_bytes": 100,
            "settings": {},
            "source": "0" * 64,
        }
        engine = EngineFile(**{**fields, **changes})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / engine.file).write_bytes(content)
        known = EngineFiles.read(folder) if (folder / BUILD_FILE).is_file() else EngineFiles(folder, target, ())
        write_json(folder / BUILD_FILE, known.with_engine(engine).to_dict())
        return engine

    return make


def _open(bench: Any, version: str = "10.13", **settings: Any) -> Any:
    library = settings.pop("library", None) or stub_library(version, bench.cuda)
    return open_tensorrt_engine(Bundle.open(bench.bundle), "gen_step", bench.cuda, library=library, **settings)


def test_the_engine_computes(bench: Any, build: Build) -> None:
    build("h100")
    engine = _open(bench)
    context = engine.context(DIMS)
    workspace = bench.cuda.allocate(context.activation_bytes, "workspace")
    context.use_activation_memory(workspace.pointer, workspace.nbytes)
    arrays = bench.bind(engine, context, DIMS, bench.inputs("gen_step", DIMS))
    context.enqueue(bench.cuda.stream())
    for name, value in bench.expected("gen_step", arrays).items():
        np.testing.assert_allclose(arrays[name], value, rtol=1e-5, atol=1e-6)


def test_of_several_targets_the_one_for_this_gpu(bench: Any, build: Build, caplog: pytest.LogCaptureFixture) -> None:
    build("jetson-agx-thor-t5000", compute_capabilities=("11.0",))
    build("rtx-4090", builder="tensorrt-rtx", builder_version="1.7.1")
    build("h100")
    assert _open(bench).path.parent.name == "h100"
    build("h200", created="2026-11-02T00:00:00+00:00")
    with caplog.at_level(logging.INFO):
        assert _open(bench).path.parent.name == "h200"
    assert "h100, h200 fit this GPU" in caplog.text
    assert _open(bench, target="h100").path.parent.name == "h100"


def test_the_best_variant_and_the_one_that_is_named(bench: Any, build: Build) -> None:
    for variant in ("primitive-fp32", "primitive17-fp32", "fused-fp32", "primitive-fp32-fp8"):
        build("h100", variant)

    def opened(**settings: Any) -> str:
        return str(_open(bench, **settings).path.name.split(".")[1])

    assert opened() == "fused-fp32"
    assert opened(variant="primitive17-fp32") == "primitive17-fp32"
    assert opened(variant="primitive-fp32", recipe="fp8") == "primitive-fp32-fp8"
    assert opened(recipe="fp8") == "primitive-fp32-fp8"
    assert opened(variant="primitive-fp32-fp8") == "primitive-fp32-fp8"
    # This recipe left the graph alone
    assert opened(recipe="nvfp4") == "fused-fp32"
    with pytest.raises(BundleError, match="did you mean"):
        opened(variant="fused-fp23")


def test_only_quantized_engines(bench: Any, build: Build) -> None:
    build("h100", "fused-fp32-fp8")
    assert _open(bench).path.name == "gen_step.fused-fp32-fp8.engine"
    build("h100", "fused-fp32-int8-sq")
    with pytest.raises(UsageError, match="several recipes"):
        _open(bench)
    assert _open(bench, recipe="int8-sq").path.name == "gen_step.fused-fp32-int8-sq.engine"


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"compute_capabilities": ("8.7",)}, HostError, "built for another GPU"),
        ({"builder_version": "10.13.2.6"}, HostError, "another version of tensorrt"),
        ({"platform": "riscv64-linux"}, HostError, "another platform"),
        ({"builder": "tensorrt-rtx"}, HostError, "is an engine of tensorrt-rtx"),
        ({"device_memory_bytes": 1 << 40}, HostError, "too little free memory"),
        ({"version_compatible": True}, HostError, "not marked as trusted"),
        ({"weights_stripped": True}, HostError, "without its weights"),
        ({"sha256": "0" * 64}, BundleError, "differs from what was built"),
        ({"graph": "und_prefill"}, BundleError, "no engine of graph 'gen_step'"),
    ],
)
def test_one_engine_that_does_not_fit(
    bench: Any, build: Build, changes: dict[str, Any], kind: type[Exception], says: str
) -> None:
    build("h100", **changes)
    with pytest.raises(kind, match=says):
        _open(bench)
    assert bench.cuda.ledger == {}


def test_none_of_several_fits(bench: Any, build: Build) -> None:
    build("orin", compute_capabilities=("8.7",))
    build("thor", compute_capabilities=("11.0",))
    with pytest.raises(HostError, match="fits this machine") as caught:
        _open(bench)
    for word in ("orin: ", "compute capability 8.7, not 9.0", "thor: ", "motedge build"):
        assert word in str(caught.value)


def test_no_engines_and_no_such_target(bench: Any, build: Build) -> None:
    with pytest.raises(BundleError, match="no engines"):
        _open(bench)
    build("h100")
    with pytest.raises(BundleError, match="no engines for 'thor'"):
        _open(bench, target="thor")


def test_what_is_trusted_and_what_is_not_checked(bench: Any, build: Build) -> None:
    build("h100", version_compatible=True, sha256="0" * 64)
    engine = _open(bench, trust_host_code=True, check_content=False)
    assert engine._runtime.engine_host_code_allowed


@pytest.mark.parametrize("integrated", [False, True])
def test_streamed_weights_need_room_only_where_memory_is_shared(
    bench: Any, build: Build, monkeypatch: pytest.MonkeyPatch, integrated: bool
) -> None:
    size = build("h100", settings={"weight_streaming": True}).bytes
    library = stub_library("10.13", bench.cuda)
    stage_of(library).streamable = size - 10
    monkeypatch.setattr(bench.cuda, "facts", dataclasses.replace(bench.cuda.facts, integrated=integrated))
    # Room for the activations, and for some of the weights
    monkeypatch.setattr(bench.cuda, "memory_info", lambda: (100 + size // 2, 1 << 30))
    with pytest.raises(HostError, match="too little free memory"):
        _open(bench, library=library)
    if integrated:
        with pytest.raises(HostError, match="too little free memory"):
            _open(bench, library=library, weight_streaming_budget=size // 2)
    else:
        assert _open(bench, library=library, weight_streaming_budget=size // 2).weight_bytes == 10 + size // 2


def test_through_the_registry(bench: Any, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    build("h100", version_compatible=True, settings={"weight_streaming": True})
    library = stub_library("10.13", bench.cuda)
    stage_of(library).streamable = 10
    monkeypatch.setattr("motedge.runtime.backends.tensorrt.find.find_library", lambda backend: library)
    bundle = Bundle.open(bench.bundle)
    with pytest.raises(HostError, match="--trust-engines"):
        open_device_engine(bundle, "gen_step", bench.cuda, backend="tensorrt")
    gpu = GpuOptions(target="h100", trust_host_code=True, weight_budget_gb=4e-9)
    engine = open_device_engine(bundle, "gen_step", bench.cuda, backend="tensorrt", **gpu.engine_options("gen_step"))
    assert engine.raw.weight_streaming_budget_v2 == 4
    assert engine._runtime.engine_host_code_allowed


def test_only_the_towers_stream() -> None:
    gpu = GpuOptions(weight_budget_gb=0)
    budgets = {graph: gpu.engine_options(graph)["weight_streaming_budget"] for graph in GRAPHS}
    assert budgets == {"und_prefill": 0, "gen_step": 0, "vae_encoder": None, "solver_step": None}
    assert {GpuOptions().engine_options(graph)["weight_streaming_budget"] for graph in GRAPHS} == {None}


@pytest.mark.parametrize("name", ["bf16", "fused", "fused-int8", "other-fp16", ""])
def test_names_that_are_no_variants(name: str) -> None:
    with pytest.raises(BundleError, match="not the name of a variant"):
        VariantName.parse(name)
