"""The understanding tower on a simulated GPU against the one on the host: a small numpy model, exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from device_engines import FunctionEngine
from host_cuda import HostCuda

from motedge.bundle import Contract, TensorSpec
from motedge.errors import ContractError
from motedge.runtime.cuda.errors import CaptureError, CudaError, OutOfDeviceMemoryError
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.reasoner.device_und import DeviceUnd
from motedge.runtime.reasoner.shared_prefill import UndAsPrefill
from motedge.runtime.reasoner.und_engine import EngineUnd

LAYERS, HEADS, D, H, V = 2, 2, 8, 16, 13
SIZES = {"H": H, "L": LAYERS, "K": HEADS, "D": D, "R": D // 2, "V": V}
WEIGHTS = {
    name: np.random.RandomState(seed).standard_normal(shape).astype(np.float32) / 4
    for seed, (name, shape) in enumerate(
        {"qkv": (LAYERS, H, 3 * HEADS * D), "out": (LAYERS, H, H), "head": (H, V)}.items()
    )
}


def _contract(features: bool) -> Contract:
    def spec(name: str, *dims: Any, dtype: str = "fp32") -> TensorSpec:
        return TensorSpec(name, dims, dtype, "test")

    return Contract(
        "und",
        (
            spec("embeddings", "S", "H"),
            spec("cos", "S", "R"),
            spec("sin", "S", "R"),
            spec("past_kv", "L", 2, "K", "P", "D", dtype="graph"),
            spec("past_length", 1),
            *([spec("deepstack", 1, "S", "H")] if features else []),
        ),
        (
            spec("logits", "V"),
            spec("kv", "L", 2, "K", "S", "D", dtype="graph"),
            *([] if features else [spec("k_for_gen", "L", "K", "S", "D", dtype="graph")]),
        ),
        SIZES,
        {"S": (1, 4, 6), "P": (2, 24, 300)},
    )


def und(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """A transformer without norms; what is hidden has the weight 0 and is multiplied by it, as in the graph."""
    x, past = inputs["embeddings"].copy(), inputs["past_kv"].astype(np.float32)
    count, slots = len(x), past.shape[3]
    seen = np.tile(np.arange(slots) + 0.5 < inputs["past_length"][0], (count, 1))
    mask = np.where(np.concatenate([seen, np.tri(count, dtype=bool)], axis=1), 0, -1e30).astype(np.float32)
    turn = np.tile(np.concatenate([inputs["cos"] + inputs["sin"]], axis=1), (1, 2))
    rows = []
    for layer in range(LAYERS):
        q, k, v = (x @ WEIGHTS["qkv"][layer]).reshape(count, 3, HEADS, D).transpose(1, 2, 0, 3)
        q, k = q * turn, k * turn
        rows.append(np.stack([k, v]))
        whole = np.concatenate([past[layer], rows[-1]], axis=2)
        scores = q @ whole[0].transpose(0, 2, 1) + mask
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = weights / weights.sum(axis=-1, keepdims=True) @ whole[1]
        x = x + np.tanh(attended.transpose(1, 0, 2).reshape(count, H) @ WEIGHTS["out"][layer])
        if layer == 0 and "deepstack" in inputs:
            x = x + inputs["deepstack"][0]
    made = np.stack(rows)
    return [x[-1] @ WEIGHTS["head"], made, *([] if "deepstack" in inputs else [made[:, 0]])]


@pytest.fixture(params=[False, True], ids=["edge", "nano"])
def features(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def make(features: bool) -> Any:
    """`make(function=und, cuda=..., capacity=...)`: cuda, engine, workspace and tower, all of it closed afterwards."""
    opened: list[SimpleNamespace] = []

    def build(
        function: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]] = und,
        engine: Any = None,
        cuda: Any = None,
        **options: Any,
    ) -> SimpleNamespace:
        cuda = cuda or HostCuda(deferred=True)
        needs = {"workspace_bytes": lambda dims: 64 * dims["S"] * dims["P"], **(engine or {})}
        with cuda.current():
            built = FunctionEngine(cuda, _contract(features), function, **needs)
            scene = SimpleNamespace(cuda=cuda, engine=built, workspace=Workspace(cuda), stream=cuda.stream("high"))
            opened.append(scene)
            scene.und = None
            scene.und = DeviceUnd(cuda, built, scene.workspace, scene.stream, **options)

        def step(*arguments: Any) -> np.ndarray:
            with cuda.current():
                return scene.und.step(*arguments).copy()

        scene.step = step
        return scene

    yield build
    for scene in opened:
        with scene.cuda.current():
            if scene.und is not None:
                scene.und.close()
                scene.und.close()
            scene.workspace.free()
            scene.engine.close()
        assert set(scene.cuda.ledger) <= {PINNED}
        scene.cuda.close()


@pytest.fixture
def host(features: bool, numpy_engine: Any) -> EngineUnd:
    engine = numpy_engine("und_prefill", und)
    engine.contract = _contract(features)
    return EngineUnd(engine)


class Text:
    """Random tokens, in the pieces that a tower takes."""

    def __init__(self, count: int, features: bool, seed: int = 0) -> None:
        random = np.random.RandomState(seed)
        self.embeddings = random.standard_normal((count, H)).astype(np.float32)
        angle = random.standard_normal((count, D // 2)).astype(np.float32)
        self.cos, self.sin = np.cos(angle), np.sin(angle)
        self.deepstack = random.standard_normal((1, count, H)).astype(np.float32) if features else None

    def part(self, start: int, count: int, seen: bool = False) -> tuple[Any, ...]:
        rows = slice(start, start + count)
        layers = np.ascontiguousarray(self.deepstack[:, rows]) if seen and self.deepstack is not None else None
        return self.embeddings[rows], self.cos[rows], self.sin[rows], start, layers


def test_equals_the_host_over_200_tokens_and_holds_no_more(make: Any, host: EngineUnd, features: bool) -> None:
    scene, text = make(capacity=230), Text(230, features)
    pieces = [(0, 6, True), (6, 5, True), (11, 1, True), (12, 1, False), (13, 6, False)]
    pieces += [(start, 1, False) for start in range(19, 230)]
    held: list[dict[str, int]] = []
    for start, count, seen in pieces:
        part = text.part(start, count, seen)
        np.testing.assert_allclose(scene.step(*part), host.step(*part), rtol=1e-5, atol=1e-5)
        held.append(dict(scene.cuda.ledger))
    assert scene.und.launch == "one CUDA graph" and len(scene.cuda.graphs) == 1
    # Since the prompt was read; the capture itself takes nothing of the ledger
    assert all(memory == held[5] for memory in held[5:])
    # The first piece, the next two or three, one for a token: contexts of prompts are closed again
    assert len(scene.engine.live) == 1
    one = text.part(229, 1)
    with pytest.raises(ContractError, match="don't reach"):
        scene.step(*one[:3], 230, None)


def test_a_token_is_one_launch_and_one_copy(make: Any, features: bool) -> None:
    scene, text = make(), Text(24, features)
    scene.step(*text.part(0, 6))
    for start in (6, 7):
        scene.step(*text.part(start, 1))
    before = scene.cuda.counts.copy()
    copies = []
    copy_rows = scene.cuda.copy_rows
    scene.cuda.copy_rows = lambda *args: (copies.append(args), copy_rows(*args))[1]
    for start in range(8, 20):
        scene.step(*text.part(start, 1))
    spent = scene.cuda.counts - before
    assert spent["graph launch"] == 12 and len(copies) == 12
    # Inputs up and logits down, in the graph, and the rows to their place
    assert spent["copy"] == 12 * 3 and spent["und"] == 12


def test_another_text_and_a_shorter_one_do_not_see_what_was_held(make: Any, host: EngineUnd, features: bool) -> None:
    scene = make()
    for seed, count in ((1, 20), (2, 9), (1, 20), (3, 1)):
        text = Text(count, features, seed)
        for start in range(0, count, 4):
            part = text.part(start, min(4, count - start), seed == 2)
            np.testing.assert_allclose(scene.step(*part), host.step(*part), rtol=1e-5, atol=1e-5)
    # Back to a token in the middle: those behind it are forgotten
    text = Text(9, features, 5)
    for start, count in ((0, 6), (6, 1), (7, 1), (3, 1), (4, 1)):
        part = text.part(start, count)
        np.testing.assert_allclose(scene.step(*part), host.step(*part), rtol=1e-5, atol=1e-5)
    with pytest.raises(ContractError, match="don't reach"):
        scene.step(*text.part(7, 1))


def test_half_precision_stays_on_the_device(make: Any, host: EngineUnd, features: bool) -> None:
    scene, text = make(engine={"dtype": "fp16"}), Text(20, features)
    for start, count in ((0, 6), *((start, 1) for start in range(6, 20))):
        part = text.part(start, count)
        np.testing.assert_allclose(scene.step(*part), host.step(*part), rtol=0, atol=2e-2)
    slots, item = 24, 2
    assert scene.cuda.ledger["the reasoner's K and V"] == LAYERS * 2 * HEADS * slots * D * item


def test_what_can_not_be_captured_runs_piece_by_piece(make: Any, host: EngineUnd, features: bool) -> None:
    text = Text(12, features)
    refused, switched, failing = (
        make(engine={"capture_refusal": "it keeps a graph of its own"}),
        make(refusal="switched off"),
        make(),
    )
    failing.cuda.inject("capture", CaptureError("the driver has no graphs"))
    for start, count in ((0, 6), *((start, 1) for start in range(6, 12))):
        part = text.part(start, count)
        expected = host.step(*part).copy()
        for scene in (refused, switched, failing):
            np.testing.assert_allclose(scene.step(*part), expected, rtol=1e-5, atol=1e-5)
    assert refused.und.launch == "piece by piece: it keeps a graph of its own"
    assert switched.und.launch == "piece by piece: switched off"
    assert failing.und.launch == "piece by piece: the driver has no graphs"


def test_a_workspace_that_moved_is_captured_anew(make: Any, host: EngineUnd, features: bool) -> None:
    scene, text = make(), Text(20, features)
    for start, count in ((0, 6), *((start, 1) for start in range(6, 20))):
        if start == 12:
            with scene.cuda.current():
                scene.workspace.cover(scene.workspace.nbytes + 4096)
        part = text.part(start, count)
        np.testing.assert_allclose(scene.step(*part), host.step(*part), rtol=1e-5, atol=1e-5)
    assert scene.und.launch == "one CUDA graph" and len(scene.engine.live) == 1


def test_nan_is_told_and_does_not_stay(make: Any, host: EngineUnd, features: bool) -> None:
    broken = {"now": False}

    def function(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        results = und(inputs)
        return [np.full_like(value, np.nan) for value in results] if broken["now"] else results

    scene, text = make(function), Text(14, features)
    for start, count in ((0, 6), (6, 1), (7, 1), (8, 1)):
        scene.step(*text.part(start, count))
    broken["now"] = True
    with pytest.raises(NonFiniteError, match="after 10 tokens"):
        scene.step(*text.part(9, 1))
    broken["now"] = False
    # What was held is gone; a new text is right at once
    with pytest.raises(ContractError, match="a start of 0 to 0"):
        scene.step(*text.part(9, 1))
    for start, count in ((0, 6), (6, 1), (7, 1), (8, 1)):
        part = text.part(start, count)
        np.testing.assert_allclose(scene.step(*part), host.step(*part), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("call", ["copy", "und", "copy rows", "graph launch"])
def test_a_call_that_fails_is_told_and_the_next_text_is_right(
    make: Any, host: EngineUnd, features: bool, call: str
) -> None:
    scene, text = make(), Text(12, features)
    for start, count in ((0, 6), (6, 1), (7, 1), (8, 1)):
        scene.step(*text.part(start, count))
    scene.cuda.inject(call, CudaError(f"{call} failed"))
    with pytest.raises(CudaError, match="failed"):
        for _ in range(2):
            # Of a token that is one graph, the engine is not called any more; of a prompt it is
            scene.step(*text.part(9, 1))
            scene.step(*text.part(0, 6))
    scene.cuda._injected.clear()
    for start, count in ((0, 6), (6, 1), (7, 1), (8, 1)):
        part = text.part(start, count)
        np.testing.assert_allclose(scene.step(*part), host.step(*part), rtol=1e-5, atol=1e-5)


def test_memory_that_is_not_there_and_capacities_that_do_not_fit(make: Any) -> None:
    with pytest.raises(ContractError, match="another range of P"):
        make(capacity=301)
    lacking = set()
    for kilobytes in range(1, 200, 8):
        try:
            make(cuda=HostCuda(kilobytes << 10), capacity=200)
        except OutOfDeviceMemoryError as error:
            lacking.add(error.what.partition("no room for ")[2])
    parts = {"the reasoner's K and V", "the reasoner's inputs", "the reasoner's outputs", "activations"}
    assert lacking <= parts and {"the reasoner's K and V", "activations"} <= lacking


@pytest.mark.parametrize("count", [1, 5, 6, 16])
def test_reads_prompts_as_the_host_does_in_the_middle_of_a_reply(
    make: Any, host: EngineUnd, numpy_engine: Any, features: bool, count: int
) -> None:
    def other_key(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        logits, made, *keys = und(inputs)
        return [logits, made, *(3 * key for key in keys)]

    scene, text, prompt = make(other_key), Text(12, features), Text(count, features, 9)
    shape = (LAYERS, 2, HEADS, count, D)
    contract = Contract("und_prefill", _contract(features).inputs[:3], (), SIZES, {"S": (1, 8, 300)})
    engine = numpy_engine("und_prefill", other_key)
    engine.contract = _contract(features)
    expected = _prefilled(engine, contract, prompt)
    with scene.cuda.current():
        block = scene.cuda.allocate(4 * int(np.prod(shape)), "prompt K and V")
    for start, new in ((0, 6), *((start, 1) for start in range(6, 12))):
        part = text.part(start, new)
        logits = scene.step(*part)
        kept = logits.copy()
        with scene.cuda.current():
            scene.und.read_prompt(prompt.embeddings, prompt.cos, prompt.sin, block.pointer)
        # Whoever waits may read it at once, the last logits are untouched, and so are K and V of the reply
        found = scene.cuda.view(block.pointer, shape, np.float32)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(logits, kept)
        np.testing.assert_allclose(logits, host.step(*part), rtol=1e-5, atol=1e-5)
    assert scene.und.launch == "one CUDA graph"
    assert "K and V of a long prompt" not in scene.cuda.ledger and len(scene.engine.live) == 1
    block.free()


def test_a_prompt_that_fails_leaves_the_reply_as_it_was(make: Any, host: EngineUnd, features: bool) -> None:
    scene, text, long = make(), Text(9, features), Text(15, features, 4)
    with scene.cuda.current():
        block = scene.cuda.allocate(4 * LAYERS * 2 * HEADS * 15 * D, "prompt K and V")
    for start, count in ((0, 6), (6, 1), (7, 1), (8, 1)):
        part = text.part(start, count)
        for call in ("copy", "und", "copy rows", "allocate"):
            scene.cuda.inject(call, CudaError(f"{call} failed"))
            with scene.cuda.current(), pytest.raises(CudaError, match=f"{call} failed"):
                scene.und.read_prompt(long.embeddings, long.cos, long.sin, block.pointer)
        np.testing.assert_allclose(scene.step(*part), host.step(*part), rtol=1e-5, atol=1e-5)
    block.free()


def _prefilled(engine: Any, contract: Contract, prompt: Text) -> np.ndarray:
    context = UndAsPrefill(engine, contract).context({"S": len(prompt.embeddings)})
    for name in ("embeddings", "cos", "sin"):
        context.set_input(name, getattr(prompt, name))
    context.run()
    und_kv: np.ndarray = context.output("und_kv")
    return und_kv
