"""Engines of the GPU behind the host's protocol: same results, nothing left, and clear words where it can't be."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from host_cuda import HostCuda

from motedge.errors import ContractError
from motedge.runtime.cuda.errors import CudaError, EngineError, OutOfDeviceMemoryError
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.device.host_engine import HostEngine
from motedge.runtime.device_engine import tensor_bytes

GRAPH = "gen_step"
DIMS = {"T": 3, "A": 5, "U": 5, "N": 17}


class FunctionEngine:
    """A DeviceEngine over a function of numpy; its contexts want a workspace of 1000 bytes for each element of U."""

    def __init__(self, cuda: HostCuda, model, graph: str = GRAPH, dtype: str = "fp32") -> None:
        self.cuda, self.contract, self.dtype, self.weight_bytes = cuda, model.contracts[graph], dtype, 0
        self.function, self.contexts, self.closed = model.functions[graph], [], 0

    def context(self, dims):
        tensor_bytes(self.contract, self.dtype, dims)
        context = FunctionContext(self, dims)
        self.contexts.append(context)
        return context

    def close(self) -> None:
        assert all(context.closed for context in self.contexts)
        self.closed += 1


class FunctionContext:
    capture_refusal = None

    def __init__(self, engine: FunctionEngine, dims) -> None:
        self.engine, self.sizes, self.closed = engine, {**engine.contract.sizes, **dims}, False
        self.pointers, self.workspace, self.failure = {}, (0, 0), None
        self.activation_bytes = 1000 * dims.get("U", 0)

    def use_activation_memory(self, pointer: int, nbytes: int) -> None:
        self.workspace = (pointer, nbytes)

    def bind(self, name: str, pointer: int) -> None:
        assert pointer % 256 == 0
        self.pointers[name] = pointer

    def enqueue(self, stream) -> None:
        assert self.workspace[1] >= self.activation_bytes
        if self.activation_bytes:
            self.engine.cuda.memory.check(*self.workspace, "workspace")
        if self.failure is not None:
            raise self.failure
        self.engine.cuda.enqueue(stream, self._run)

    def _run(self) -> None:
        contract = self.engine.contract
        arrays = {
            spec.name: self.engine.cuda.view(self.pointers[spec.name], spec.shape(self.sizes), np.float32)
            for spec in (*contract.inputs, *contract.outputs)
        }
        for spec, value in zip(contract.outputs, self.engine.function(arrays)):
            arrays[spec.name][...] = value

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def gpu():
    """Nothing is current here: the engine sees to that itself."""
    cuda = HostCuda(deferred=True)
    yield cuda
    cuda.close()


def _inputs(engine, dims=DIMS, seed=0):
    random, sizes = np.random.RandomState(seed), {**engine.contract.sizes, **dims}
    return {s.name: random.standard_normal(s.shape(sizes)).astype(np.float32) for s in engine.contract.inputs}


def _run(engine, inputs, dims=DIMS):
    context = engine.context(dims)
    for name, value in inputs.items():
        context.set_input(name, value)
    context.run()
    return context


def _check(context, expected) -> None:
    for name, value in zip(("vision_velocity", "action_velocity"), expected):
        np.testing.assert_allclose(context.output(name), value, rtol=1e-5, atol=1e-6)


def test_runs_and_equals_numpy(gpu, model) -> None:
    engine = HostEngine(FunctionEngine(gpu, model), gpu)
    inputs = _inputs(engine)
    context = _run(engine, inputs)
    _check(context, model.functions[GRAPH](inputs))
    # The array is read where it lies, and the output's stays the same
    output = context.output("vision_velocity")
    inputs["vision"] *= 2
    context.run()
    assert context.output("vision_velocity") is output
    _check(context, model.functions[GRAPH](inputs))


def test_one_copy_in_and_one_out(gpu, model) -> None:
    engine = HostEngine(FunctionEngine(gpu, model), gpu)
    _run(engine, _inputs(engine))
    assert gpu.counts["copy"] == 2


def test_contexts_share_the_largest_workspace(gpu, model) -> None:
    inner = FunctionEngine(gpu, model)
    engine = HostEngine(inner, gpu)
    sizes = [{**DIMS, "U": 5}, {**DIMS, "U": 12}, {**DIMS, "U": 3}]
    contexts = [engine.context(dims) for dims in sizes]
    assert len({context.workspace for context in inner.contexts}) == 1
    assert gpu.ledger["gen_step: workspace"] == 12_000
    for context, dims in zip(contexts, sizes):
        inputs = _inputs(engine, dims)
        for name, value in inputs.items():
            context.set_input(name, value)
        context.run()
        _check(context, model.functions[GRAPH](inputs))


def test_outputs_outlive_the_engine(gpu, model) -> None:
    engine = HostEngine(FunctionEngine(gpu, model), gpu, owns_cuda=True)
    inputs = _inputs(engine)
    context = _run(engine, inputs)
    engine.close()
    assert gpu.closed
    _check(context, model.functions[GRAPH](inputs))


def test_dropped_contexts_are_freed_and_their_pinned_memory_used_again(gpu, model) -> None:
    inner = FunctionEngine(gpu, model)
    engine = HostEngine(inner, gpu)
    for length in (5, 12, 4, 7):
        dims = {**DIMS, "U": length}
        inputs = _inputs(engine, dims)
        _check(_run(engine, inputs, dims), model.functions[GRAPH](inputs))
        gc.collect()
    assert gpu.counts["copy"] == 8
    live = [context for context in inner.contexts if not context.closed]
    assert len(live) == 1
    assert gpu.ledger[PINNED] == 1 << 20


def test_closing_gives_everything_back(gpu, model) -> None:
    inner = FunctionEngine(gpu, model)
    engine = HostEngine(inner, gpu)
    context = _run(engine, _inputs(engine))
    engine.close()
    engine.close()
    assert inner.closed == 1
    assert not [name for name in gpu.ledger if "gen_step" in name]
    for act in (context.run, lambda: engine.context(DIMS)):
        with pytest.raises(ContractError, match="has been closed"):
            act()


@pytest.mark.parametrize(
    ("call", "after"), [("allocate", 0), ("allocate", 1), ("pinned", 0)], ids=["tensors", "workspace", "pinned"]
)
def test_a_context_that_can_not_be_made_leaves_nothing(gpu, model, call, after) -> None:
    inner = FunctionEngine(gpu, model)
    engine = HostEngine(inner, gpu)
    gpu.inject(call, OutOfDeviceMemoryError("injected"), after=after)
    with pytest.raises(OutOfDeviceMemoryError, match="injected"):
        engine.context(DIMS)
    assert inner.contexts[0].closed
    assert "gen_step: inputs and outputs" not in gpu.ledger
    inputs = _inputs(engine)
    _check(_run(engine, inputs), model.functions[GRAPH](inputs))
    engine.close()


def test_a_failing_run_comes_through_and_the_next_one_works(gpu, model) -> None:
    inner = FunctionEngine(gpu, model)
    engine = HostEngine(inner, gpu)
    inputs = _inputs(engine)
    context = _run(engine, inputs)
    inner.contexts[0].failure = EngineError("injected")
    with pytest.raises(EngineError, match="injected"):
        context.run()
    inner.contexts[0].failure = None
    context.run()
    _check(context, model.functions[GRAPH](inputs))


def test_an_engine_that_fails_to_close_does_not_keep_the_rest(gpu, model) -> None:
    inner = FunctionEngine(gpu, model)
    engine = HostEngine(inner, gpu, owns_cuda=True)
    engine.context(DIMS)

    def fail() -> None:
        raise CudaError("injected")

    inner.close = fail
    with pytest.raises(CudaError, match="injected"):
        engine.close()
    assert gpu.closed


def test_bf16_never_reaches_the_host(gpu, model) -> None:
    inner = FunctionEngine(gpu, model, dtype="bf16")
    engine = HostEngine(inner, gpu)
    with pytest.raises(ContractError, match="no bf16 arrays"):
        engine.context(DIMS)
    assert inner.contexts == []
    vae = HostEngine(FunctionEngine(gpu, model, "vae_encoder", "bf16"), gpu)
    image = np.ones((1, 3, model.canvas, model.canvas), np.float32)
    expected = model.functions["vae_encoder"]({"image": image})[0]
    np.testing.assert_allclose(_run(vae, {"image": image}, {}).output("latent"), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("visio", lambda v: v, "no input 'visio'"),
        ("vision", lambda v: v.astype(np.float64), "expected: float32"),
        ("vision", lambda v: np.asfortranarray(v), "C order"),
    ],
)
def test_refuses_arrays(gpu, model, name, change, message) -> None:
    engine = HostEngine(FunctionEngine(gpu, model), gpu)
    with pytest.raises(ContractError, match=message):
        engine.context(DIMS).set_input(name, change(_inputs(engine)["vision"]))


def test_refuses_a_run_without_all_inputs_and_outputs_by_a_wrong_name(gpu, model) -> None:
    engine = HostEngine(FunctionEngine(gpu, model), gpu)
    context = engine.context(DIMS)
    with pytest.raises(ContractError, match="without all inputs"):
        context.run()
    with pytest.raises(ContractError, match="no output 'velocity'"):
        context.output("velocity")
    with pytest.raises(ContractError, match="another range of U"):
        engine.context({**DIMS, "U": 13})


def test_the_numpy_loop_runs_on_it(gpu, cpu_engine, onnx_bundle, numpy_engine, tables, model, gen_inputs) -> None:
    from motedge.runtime.denoise import DenoiseLoop, SamplerSettings

    und, gen = (HostEngine(cpu_engine(gpu, onnx_bundle, graph), gpu) for graph in ("und_prefill", GRAPH))
    ours = DenoiseLoop(und, gen, tables, model.config)
    plain = DenoiseLoop(numpy_engine("und_prefill"), numpy_engine(GRAPH), tables, model.config)
    for changes in ({}, {"seed": 8}, {"cond_tokens": np.arange(12)}):
        a, b = (loop.run(gen_inputs(**changes), SamplerSettings()) for loop in (ours, plain))
        np.testing.assert_allclose(a.vision, b.vision, atol=1e-5, rtol=0)
        np.testing.assert_allclose(a.action, b.action, atol=1e-5, rtol=0)
    ours.close()
    for engine in (und, gen):
        engine.close()
