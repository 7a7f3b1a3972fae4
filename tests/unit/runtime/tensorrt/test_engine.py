"""TensorRT engines on stubs of six releases: numbers, shared workspaces, captures, profiles, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from tensorrt_runtime_stub import RUNTIME_VERSIONS, stage_of, stub_library

from motedge.bundle import Contract
from motedge.errors import BundleError, ContractError, HostError, UsageError
from motedge.runtime.backends.tensorrt.engine import TensorRtEngine
from motedge.runtime.cuda.errors import EngineError, OutOfDeviceMemoryError, StickyCudaError

ALL = pytest.mark.parametrize("version", RUNTIME_VERSIONS)
DIMS = {"T": 3, "A": 5, "U": 6, "N": 17}
OTHER_DIMS = {**DIMS, "U": 3}


def _close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@ALL
def test_two_contexts_on_one_workspace(bench: Any, version: str) -> None:
    """As the loop has them for the conditional and the unconditional branch, by stream and by replay."""
    engine, cuda = bench.load(version), bench.cuda
    assert engine.dtype == "fp32"
    assert engine.weight_bytes == (12_345 if version in ("10.16", "11.4", "rtx") else engine.path.stat().st_size)
    contexts = [engine.context(dims) for dims in (DIMS, OTHER_DIMS)]
    size = max(context.activation_bytes for context in contexts)
    workspace, stream = cuda.allocate(size, "workspace"), cuda.stream()
    sides = []
    for seed, (context, dims) in enumerate(zip(contexts, (DIMS, OTHER_DIMS))):
        context.use_activation_memory(workspace.pointer, workspace.nbytes)
        inputs = bench.inputs("gen_step", dims, seed)
        sides.append((bench.bind(engine, context, dims, inputs), dims))
        assert context.capture_refusal is None

    def enqueue() -> None:
        for context in contexts:
            context.enqueue(stream)

    enqueue()
    for arrays, _ in sides:
        _close(arrays, bench.expected("gen_step", arrays))
    graph = cuda.capture(stream, enqueue)
    before = bench.stage(engine).runs
    for seed, (arrays, dims) in enumerate(sides):
        for name, value in bench.inputs("gen_step", dims, seed + 10).items():
            arrays[name][...] = value
    graph.launch(stream)
    assert bench.stage(engine).runs == before + 2
    for arrays, _ in sides:
        _close(arrays, bench.expected("gen_step", arrays))
    engine.close()
    engine.close()
    assert not bench.stage(engine).contexts
    assert not bench.stage(engine).engines


@ALL
def test_the_workspace_is_that_of_the_shapes_where_a_version_can_tell(bench: Any, version: str) -> None:
    engine = bench.load(version)
    small, large = (engine.context({**DIMS, "T": t}).activation_bytes for t in (2, 4))
    assert small <= large
    # 8.6 knows the largest alone
    assert (small == large) == (version == "8.6")


@ALL
def test_another_address_takes_effect_with_the_next_run(bench: Any, version: str) -> None:
    engine, cuda = bench.load(version, "vae_encoder"), bench.cuda
    context, stream = engine.context({}), cuda.stream()
    workspace = cuda.allocate(context.activation_bytes, "workspace")
    context.use_activation_memory(workspace.pointer, workspace.nbytes)
    arrays = bench.bind(engine, context, {}, bench.inputs("vae_encoder", {}))
    context.enqueue(stream)
    second = cuda.allocate(arrays["image"].nbytes, "second frame")
    frame = cuda.view(second.pointer, arrays["image"].shape, np.float32)
    frame[...] = bench.inputs("vae_encoder", {}, seed=1)["image"]
    context.bind("image", second.pointer)
    context.enqueue(stream)
    _close(arrays, bench.expected("vae_encoder", {"image": frame}))


@ALL
def test_the_narrowest_profile_that_covers_the_shapes(bench: Any, version: str) -> None:
    contract: Contract = bench.model.contracts["und_prefill"]

    def profile(low: int, high: int) -> dict[str, list[Any]]:
        sizes = [{**contract.sizes, "S": s} for s in (low, low, high)]
        return {spec.name: [spec.shape(size) for size in sizes] for spec in contract.inputs}

    engine = bench.load(version, "und_prefill", plan={"profiles": [profile(2, 12), profile(4, 6)]})
    for length, chosen in ((3, 0), (5, 1), (12, 0)):
        context = engine.context({"S": length})
        workspace = bench.cuda.allocate(context.activation_bytes, "workspace")
        context.use_activation_memory(workspace.pointer, workspace.nbytes)
        arrays = bench.bind(engine, context, {"S": length}, bench.inputs("und_prefill", {"S": length}))
        context.enqueue(bench.cuda.stream())
        _close(arrays, bench.expected("und_prefill", arrays))
        assert next(iter(bench.stage(engine).contexts)).stub_profile == chosen
        context.close()
    # A profile that stops short of what the contract promises is found when the engine is loaded
    with pytest.raises(BundleError, match="range of shapes"):
        bench.load(version, "und_prefill", plan={"profiles": [profile(2, 8)]})


def test_a_size_outside_the_profile(bench: Any) -> None:
    engine = bench.load("10.3")
    with pytest.raises(ContractError, match="another range of U"):
        engine.context({**DIMS, "U": 13})
    with pytest.raises(ContractError, match="values for A"):
        engine.context({"T": 3, "U": 5, "N": 17})
    assert not bench.stage(engine).contexts


@ALL
@pytest.mark.parametrize("content", [b"", b"garbage" * 100, None])
def test_a_plan_that_is_no_plan(bench: Any, version: str, content: bytes | None) -> None:
    library = stub_library(version, bench.cuda)
    path = bench.path("gen_step")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises((EngineError, BundleError)) as caught:
        TensorRtEngine.load(path, bench.model.contracts["gen_step"], "fp32", bench.cuda, library=library)
    assert "gen_step.engine" in str(caught.value)
    assert "motedge build" in str(caught.value)
    if content != b"":
        assert "graph 'gen_step'" in str(caught.value)
        assert "Magic tag does not match" in str(caught.value)
    assert bench.cuda.ledger == {}


def test_a_missing_file(bench: Any) -> None:
    with pytest.raises(BundleError, match="no engine in"):
        TensorRtEngine.load(
            bench.folder / "absent.engine",
            bench.model.contracts["gen_step"],
            "fp32",
            bench.cuda,
            library=stub_library("10.3", bench.cuda),
        )


@ALL
@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"types": {"t": "HALF"}}, "type of 't'"),
        ({"types": {"action_velocity": "HALF"}}, "type of 'action_velocity'"),
        ({"place": "HOST"}, "place of 'vision'"),
        ({"format": "CHW32"}, "layout of 'vision'"),
    ],
)
def test_tensors_that_differ_from_the_contract(bench: Any, version: str, plan: dict[str, Any], says: str) -> None:
    library = stub_library(version, bench.cuda)
    with pytest.raises(BundleError, match=says):
        bench.load(version, plan=plan, library=library)
    assert not stage_of(library).engines


def test_the_engine_of_another_graph(bench: Any) -> None:
    path, contracts = bench.path("und_prefill"), bench.model.contracts
    library = stub_library("10.3", bench.cuda)
    with pytest.raises(BundleError, match=r"not an engine of graph 'gen_step'.*inputs"):
        TensorRtEngine.load(path, contracts["gen_step"], "fp32", bench.cuda, library=library)
    wrong = dataclasses.replace(contracts["und_prefill"], sizes={**contracts["und_prefill"].sizes, "H": 7})
    with pytest.raises(BundleError, match="shape of 'embeddings'"):
        TensorRtEngine.load(path, wrong, "fp32", bench.cuda, library=library)
    with pytest.raises(BundleError, match="type of 'und_kv'"):
        TensorRtEngine.load(path, contracts["und_prefill"], "fp16", bench.cuda, library=library)


@ALL
@pytest.mark.parametrize(
    ("member", "text", "kind"),
    [
        ("deserialize_cuda_engine", "CUDA out of memory", OutOfDeviceMemoryError),
        ("deserialize_cuda_engine", "a tag does not fit", EngineError),
        ("create_execution_context", "Cuda Runtime (out of memory)", OutOfDeviceMemoryError),
        ("create_execution_context", "no such profile", EngineError),
        ("set_input_shape", "static dimension mismatch", EngineError),
        ("set_tensor_address", "unknown tensor", EngineError),
        ("execute_async_v3", "cask convolution failed", EngineError),
        ("execute_async_v3", "Cuda Runtime (an illegal memory access was encountered)", StickyCudaError),
    ],
)
def test_a_failing_call_names_engine_graph_and_reason(
    bench: Any, version: str, member: str, text: str, kind: type[HostError]
) -> None:
    library = stub_library(version, bench.cuda)
    stage = stage_of(library)
    stage.fail[member] = text
    kept = None
    try:
        engine = bench.load(version, library=library)
        context = engine.context(DIMS)
        workspace = bench.cuda.allocate(context.activation_bytes, "workspace")
        context.use_activation_memory(workspace.pointer, workspace.nbytes)
        bench.bind(engine, context, DIMS, {})
        context.enqueue(bench.cuda.stream())
    except HostError as error:
        kept = error
    assert type(kept) is kind
    assert text in str(kept)
    assert "graph 'gen_step' (gen_step.engine)" in str(kept)
    assert library.version in str(kept)
    if member in ("set_input_shape", "set_tensor_address"):
        assert "tensor '" in str(kept)
    if member == "deserialize_cuda_engine":
        assert not stage.engines
    if member in ("create_execution_context", "set_input_shape"):
        # The error is still held here, and its traceback with it
        assert not stage.contexts
        engine.close()
        assert not stage.engines


def test_failures_that_only_some_versions_have(bench: Any) -> None:
    engine = bench.load("10.13")
    bench.stage(engine).fail["update_device_memory_size_for_shapes"] = "not all shapes are known"
    with pytest.raises(EngineError, match="the size of its workspace"):
        engine.context(DIMS)
    assert not bench.stage(engine).contexts


def test_what_a_run_needs(bench: Any) -> None:
    engine, cuda = bench.load("10.3"), bench.cuda
    context, stream = engine.context(DIMS), cuda.stream()
    with pytest.raises(ContractError, match=r"without all tensors[\s\S]*vision"):
        context.enqueue(stream)
    bench.bind(engine, context, DIMS, {})
    with pytest.raises(ContractError, match="without a workspace"):
        context.enqueue(stream)
    workspace = cuda.allocate(context.activation_bytes + 256, "workspace")
    with pytest.raises(ContractError, match="can't take this workspace"):
        context.use_activation_memory(workspace.pointer, context.activation_bytes - 1)
    with pytest.raises(ContractError, match="can't take this workspace"):
        context.use_activation_memory(workspace.pointer + 4, context.activation_bytes)
    with pytest.raises(ContractError, match="no tensor 'visoin'"):
        context.bind("visoin", workspace.pointer)
    with pytest.raises(ContractError, match="multiple of 256"):
        context.bind("vision", workspace.pointer + 64)
    with pytest.raises(ContractError, match="multiple of 256"):
        context.bind("vision", 0)
    context.use_activation_memory(workspace.pointer, workspace.nbytes)
    context.enqueue(stream)
    context.close()
    context.close()
    for call in (lambda: context.enqueue(stream), lambda: context.bind("t", 256)):
        with pytest.raises(ContractError, match="closed"):
            call()
    engine.close()
    with pytest.raises(ContractError, match="closed"):
        engine.context(DIMS)


def test_weights_that_stay_on_the_host(bench: Any) -> None:
    library = stub_library("11.4", bench.cuda)
    stage_of(library).streamable = 10_000
    engine = bench.load("11.4", library=library, weight_streaming_budget=4_000)
    assert engine.raw.weight_streaming_budget_v2 == 4_000
    assert engine.weight_bytes == 2_345 + 4_000
    assert bench.load("11.4", library=library, weight_streaming_budget=10_000).weight_bytes == 12_345
    with pytest.raises(UsageError, match="budget is wrong"):
        bench.load("11.4", library=library, weight_streaming_budget=-1)
    for version in ("8.6", "10.3"):
        with pytest.raises(UsageError, match="can't stream its weights"):
            bench.load(version, weight_streaming_budget=1)


def test_a_version_compatible_plan_runs_its_code_only_when_trusted(bench: Any) -> None:
    for trusted in (False, True):
        engine = bench.load("10.16", trust_host_code=trusted)
        assert bool(engine._runtime.engine_host_code_allowed) == trusted


def test_auxiliary_streams_are_told(bench: Any) -> None:
    library = stub_library("10.3", bench.cuda)
    stage_of(library).aux_streams = 2
    assert bench.load("10.3", library=library).auxiliary_streams == 2


def test_an_engine_that_allocates_while_it_runs_is_not_captured(bench: Any) -> None:
    engine = bench.load("rtx")
    context = engine.context(DIMS)
    bench.stage(engine).capturable = False
    assert "can't be captured" in str(context.capture_refusal)
