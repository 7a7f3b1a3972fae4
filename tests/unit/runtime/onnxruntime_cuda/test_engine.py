"""Engines and contexts of the CUDA backend, run for real on the CPU's provider: binding, order, capture, clean-up."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import weakref

import numpy as np
import pytest

from motedge.errors import BundleError, ContractError, UsageError
from motedge.runtime.backends.onnxruntime_cuda import engine as engine_module
from motedge.runtime.cuda.errors import EngineError, OutOfDeviceMemoryError

GRAPH = "gen_step"
DIMS = {"T": 3, "A": 5, "U": 5, "N": 17}
VELOCITY = "vision_velocity"


def _before(*release: int) -> bool:
    return tuple(int(part) for part in importlib.metadata.version("onnxruntime").split(".")[:2]) < release


def _expected(model, bound) -> list[np.ndarray]:
    return model.functions[GRAPH](bound.inputs())


def _check(bound, expected) -> None:
    for name, value in zip((VELOCITY, "action_velocity"), expected):
        np.testing.assert_allclose(bound.arrays[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["own", "outer", "off"])
def test_runs_and_equals_numpy(cuda, cpu_engine, onnx_bundle, bound, model, mode) -> None:
    engine = cpu_engine(cuda, onnx_bundle, GRAPH, cuda_graph=mode)
    tensors = bound(cuda, engine, DIMS)
    tensors.context.enqueue(engine.stream)
    _check(tensors, _expected(model, tensors))
    for turn in range(3):
        tensors.arrays["vision"][...] *= 2
        tensors.context.enqueue(engine.stream)
        _check(tensors, _expected(model, tensors))
        assert cuda.counts["enqueue"] == 2 + turn


def test_nothing_waits_and_runs_keep_the_addresses_of_their_time(
    deferred, cpu_engine, onnx_bundle, bound, model
) -> None:
    engine = cpu_engine(deferred, onnx_bundle, GRAPH)
    tensors = bound(deferred, engine, DIMS)
    first, first_output = _expected(model, tensors), tensors.arrays[VELOCITY]
    tensors.context.enqueue(engine.stream)
    assert deferred.counts["enqueue"] == 0
    for name in ("und_kv", VELOCITY):
        tensors.add(name, tensors.arrays[name].shape, np.float32)
    tensors.arrays["und_kv"][...] = 3
    second = _expected(model, tensors)
    tensors.context.enqueue(engine.stream)
    engine.stream.synchronize()
    np.testing.assert_allclose(first_output, first[0], rtol=1e-5, atol=1e-6)
    _check(tensors, second)


def test_another_stream_waits_for_the_run_and_the_run_for_it(deferred, cpu_engine, onnx_bundle, bound, model) -> None:
    engine = cpu_engine(deferred, onnx_bundle, GRAPH)
    tensors = bound(deferred, engine, DIMS)
    mine, source = deferred.stream(), deferred.allocate(tensors.arrays["vision"].nbytes, "source")
    result = deferred.allocate(tensors.arrays[VELOCITY].nbytes, "result")
    deferred.view(source.pointer, tensors.arrays["vision"].shape, np.float32)[...] = 7
    deferred.copy(tensors.blocks["vision"][0].pointer, source.pointer, source.nbytes, mine)
    tensors.context.enqueue(mine)
    deferred.copy(result.pointer, tensors.blocks[VELOCITY][0].pointer, result.nbytes, mine)
    mine.synchronize()
    assert (tensors.arrays["vision"] == 7).all()
    got = deferred.view(result.pointer, tensors.arrays[VELOCITY].shape, np.float32)
    np.testing.assert_allclose(got, _expected(model, tensors)[0], rtol=1e-5, atol=1e-6)


def test_a_captured_run_is_replayed_on_what_lies_there_then(cuda, cpu_engine, onnx_bundle, bound, model) -> None:
    engine = cpu_engine(cuda, onnx_bundle, GRAPH, cuda_graph="outer")
    tensors = bound(cuda, engine, DIMS)
    assert tensors.context.capture_refusal is None
    tensors.context.enqueue(engine.stream)
    graph = cuda.capture(engine.stream, lambda: tensors.context.enqueue(engine.stream))
    for scale in (2, -3):
        tensors.arrays["vision"][...] *= scale
        graph.launch(engine.stream)
        _check(tensors, _expected(model, tensors))
    graph.close()


def test_capture_from_another_stream_joins_it(cuda, cpu_engine, onnx_bundle, bound, model) -> None:
    engine = cpu_engine(cuda, onnx_bundle, GRAPH, cuda_graph="outer")
    tensors, mine = bound(cuda, engine, DIMS), cuda.stream()
    tensors.context.enqueue(mine)
    graph = cuda.capture(mine, lambda: tensors.context.enqueue(mine))
    tensors.arrays["t"][...] = 400
    graph.launch(mine)
    _check(tensors, _expected(model, tensors))


def test_a_stream_given_is_the_one_that_is_used(cuda, cpu_engine, onnx_bundle) -> None:
    mine = cuda.stream()
    assert cpu_engine(cuda, onnx_bundle, GRAPH, stream=mine).stream is mine


@pytest.mark.parametrize(("mode", "words"), [("own", "of its own"), ("off", 'cuda_graph="off"')])
def test_why_a_run_cannot_be_captured(cuda, cpu_engine, onnx_bundle, mode, words) -> None:
    engine = cpu_engine(cuda, onnx_bundle, GRAPH, cuda_graph=mode)
    assert words in engine.context(DIMS).capture_refusal


def _graph_id(context) -> int:
    return int(context._now.run_options.get_run_config_entry("gpu_graph_id"))


def test_each_set_of_addresses_has_a_graph_of_its_own(cuda, cpu_engine, onnx_bundle, bound) -> None:
    """The library's graph replays the addresses that it was captured with, whatever is bound by then."""
    engine = cpu_engine(cuda, onnx_bundle, GRAPH, cuda_graph="own")
    one, other = bound(cuda, engine, DIMS), bound(cuda, engine, {**DIMS, "U": 12})
    numbers = []
    for tensors in (one, other, one, one, other, one):
        tensors.context.enqueue(engine.stream)
        numbers.append(_graph_id(tensors.context))
    # What runs once is not captured
    assert numbers == [-1, -1, 1, 1, 2, 1]
    old = one.blocks["und_kv"][0].pointer
    one.add("und_kv", one.arrays["und_kv"].shape, np.float32)
    for expected in (-1, 3):
        one.context.enqueue(engine.stream)
        assert _graph_id(one.context) == expected
    # As a loop does that goes back to an earlier prompt
    one.context.bind("und_kv", old)
    one.context.enqueue(engine.stream)
    assert _graph_id(one.context) == 1


@pytest.mark.parametrize("mode", ["outer", "off"])
def test_no_graph_of_the_library_in_the_other_modes(cuda, cpu_engine, onnx_bundle, bound, mode) -> None:
    engine = cpu_engine(cuda, onnx_bundle, GRAPH, cuda_graph=mode)
    tensors = bound(cuda, engine, DIMS)
    for _ in range(3):
        tensors.context.enqueue(engine.stream)
        assert _graph_id(tensors.context) == -1


def test_graphs_of_the_library_come_to_an_end(cuda, cpu_engine, onnx_bundle, monkeypatch, caplog) -> None:
    monkeypatch.setattr(engine_module, "OWN_GRAPHS_AT_MOST", 2)
    engine = cpu_engine(cuda, onnx_bundle, GRAPH, cuda_graph="own")
    with caplog.at_level(logging.WARNING):
        assert [engine.take_graph_id() for _ in range(4)] == [1, 2, -1, -1]
    assert len(caplog.records) == 1


def test_half_precision_keeps_its_dtype_on_the_device(cuda, cpu_engine, onnx_bundle, bound, model) -> None:
    _take_kv(onnx_bundle, "FLOAT16")
    engine = cpu_engine(cuda, onnx_bundle, GRAPH, dtype="fp16")
    tensors = bound(cuda, engine, DIMS)
    assert tensors.arrays["und_kv"].dtype == np.float16
    tensors.context.enqueue(engine.stream)
    _check(tensors, _expected(model, tensors))


@pytest.mark.skipif(_before(1, 20), reason="this onnxruntime binds numpy's types alone")
def test_bf16_is_bound_by_its_number_in_onnx(cuda, cpu_engine, onnx_bundle, bound, model) -> None:
    _take_kv(onnx_bundle, "BFLOAT16")
    engine = cpu_engine(cuda, onnx_bundle, GRAPH, dtype="bf16")
    tensors = bound(cuda, engine, DIMS)
    values = np.float32([0.5, -1.25, 2, 3]).repeat(80).reshape(tensors.arrays["und_kv"].shape)
    # Exact in bf16, which is the upper half of fp32
    tensors.arrays["und_kv"][...] = (values.view(np.uint32) >> 16).astype(np.uint16)
    tensors.context.enqueue(engine.stream)
    _check(tensors, model.functions[GRAPH]({**tensors.inputs(), "und_kv": values}))


def _take_kv(root, kind: str) -> None:
    """Makes gen_step take K and V in another type."""
    onnx = pytest.importorskip("onnx")
    path = root / "graphs/gen_step.primitive-fp32.onnx"
    model = onnx.load(path)
    value = next(i for i in model.graph.input if i.name == "und_kv")
    value.type.tensor_type.elem_type = getattr(onnx.TensorProto, kind)
    for node in model.graph.node:
        node.input[:] = ["kv32" if name == "und_kv" else name for name in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["und_kv"], ["kv32"], to=onnx.TensorProto.FLOAT))
    onnx.save(model, path)


def test_closing_gives_everything_back(cuda, cpu_engine, onnx_bundle, bound) -> None:
    engine = cpu_engine(cuda, onnx_bundle, GRAPH)
    session, tensors = weakref.ref(engine.session), bound(cuda, engine, DIMS)
    left_open = bound(cuda, engine, {**DIMS, "U": 4})
    tensors.context.enqueue(engine.stream)
    left_open.context.enqueue(engine.stream)
    tensors.free()
    engine.close()
    engine.close()
    gc.collect()
    assert session() is None
    with pytest.raises(ContractError, match="closed"):
        left_open.context.enqueue(engine.stream)
    left_open.free()
    assert cuda.ledger == {}
    with pytest.raises(ContractError, match="has been closed"):
        engine.context(DIMS)


@pytest.mark.parametrize(
    ("name", "pointer", "words"),
    [("visio", 4096, "no tensor 'visio'"), ("vision", 0, "multiple of 256"), ("vision", 4224, "0x1080")],
)
def test_refuses_addresses(cuda, cpu_engine, onnx_bundle, name, pointer, words) -> None:
    with pytest.raises(ContractError, match=words):
        cpu_engine(cuda, onnx_bundle, GRAPH).context(DIMS).bind(name, pointer)


def test_refuses_a_run_without_all_tensors(cuda, cpu_engine, onnx_bundle) -> None:
    engine = cpu_engine(cuda, onnx_bundle, GRAPH)
    context = engine.context(DIMS)
    context.bind("vision", 4096)
    with pytest.raises(ContractError, match=r"no \['action', .*'action_velocity'\]"):
        context.enqueue(engine.stream)


def test_refuses_sizes(cuda, cpu_engine, onnx_bundle) -> None:
    with pytest.raises(ContractError, match="another range of U"):
        cpu_engine(cuda, onnx_bundle, GRAPH).context({**DIMS, "U": 13})


def test_a_failing_run_names_graph_and_sizes_and_leaves_the_engine_usable(
    cuda, cpu_engine, onnx_bundle, bound, model
) -> None:
    engine = cpu_engine(cuda, onnx_bundle, GRAPH)
    tensors = bound(cuda, engine, DIMS)
    # Past the contract, as a graph would be that differs from it
    tensors.context._shapes["action_in_weight"] = (3, 4)
    with pytest.raises(EngineError, match="'gen_step' at T=3, A=5, U=5, N=17"):
        tensors.context.enqueue(engine.stream)
    other = bound(cuda, engine, DIMS)
    other.context.enqueue(engine.stream)
    _check(other, _expected(model, other))


def test_a_graph_that_is_not_as_its_contract(cuda, cpu_engine, onnx_bundle) -> None:
    with pytest.raises(BundleError, match=r"inputs of .* differ from the contract"):
        cpu_engine(cuda, onnx_bundle, GRAPH, dtype="bf16")
    assert cuda.ledger == {}


def test_a_file_that_is_no_model(cuda, cpu_engine, onnx_bundle) -> None:
    (onnx_bundle / "graphs/gen_step.primitive-fp32.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="can't load graph 'gen_step'"):
        cpu_engine(cuda, onnx_bundle, GRAPH)


def test_weights_that_do_not_fit(cuda, cpu_engine, onnx_bundle, monkeypatch) -> None:
    def fail(*arguments, **options):
        raise RuntimeError("Available memory of 1024 is smaller than requested bytes of 4096")

    monkeypatch.setattr(engine_module.OnnxRuntimeCudaEngine, "_session", fail)
    with pytest.raises(OutOfDeviceMemoryError, match="no room for the weights of graph 'gen_step'") as caught:
        cpu_engine(cuda, onnx_bundle, GRAPH, memory_limit_bytes=1024)
    assert "at most 1,024 bytes" in str(caught.value)


def test_a_graph_that_can_not_be_captured_runs_without(
    cuda, cpu_engine, onnx_bundle, bound, model, monkeypatch
) -> None:
    made, asked = engine_module.OnnxRuntimeCudaEngine._session, []

    def refuse_once(self, path, threads, graphs):
        asked.append(graphs)
        if graphs:
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        return made(self, path, threads, graphs)

    monkeypatch.setattr(engine_module.OnnxRuntimeCudaEngine, "_session", refuse_once)
    engine = cpu_engine(cuda, onnx_bundle, GRAPH, cuda_graph="outer")
    assert asked == [True, False]
    assert engine.cuda_graph == "off"
    assert "cannot use the graph capture feature" in engine.context(DIMS).capture_refusal
    tensors = bound(cuda, engine, DIMS)
    tensors.context.enqueue(engine.stream)
    _check(tensors, _expected(model, tensors))


def test_settings_that_are_wrong(cuda, cpu_engine, onnx_bundle) -> None:
    with pytest.raises(UsageError, match="did you mean 'outer'"):
        cpu_engine(cuda, onnx_bundle, GRAPH, cuda_graph="outr")
    with pytest.raises(UsageError, match="memory limit"):
        cpu_engine(cuda, onnx_bundle, GRAPH, memory_limit_bytes=0)
