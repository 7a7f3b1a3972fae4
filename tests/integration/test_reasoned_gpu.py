"""A policy that reasons on a simulated GPU: the host's words and actions, in slices and in the background."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from kernel_twins import KERNELS
from policy_reference import CUP, DOOR, observation
from shared_gpu import SharedGpu, add_engines
from tensorrt_runtime_stub import stage_of
from tiny import MINI_POLICY

import motedge
from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.cli.main import main
from motedge.errors import UsageError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.cuda.errors import CudaError, OutOfDeviceMemoryError, StickyCudaError
from motedge.runtime.deadline import with_deadlines
from motedge.runtime.generate import GenerateRequest, load_generator
from motedge.runtime.policy import GpuOptions
from motedge.runtime.reasoned.loader import load_reasoned_policy
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.runtime.reasoned.policy import ReasonedPolicy
from motedge.runtime.reasoner.sampling import Sampler
from motedge.runtime.text.codec import TextCodec

# und_prefill is not among them: the reasoner's tower reads the prompts
GRAPHS = ("gen_step", "vae_encoder", "solver_step", "und", "vision_encoder")
PLAN = json.dumps({"plan": ["lift the cup", "put it down"]})
SETTINGS: dict[str, Any] = {"check": "size", "threads": 1, "steps": 2}
TOLERANCE = 1e-5
IN_TIME_S = 60


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reasoned-gpu")
    checkpoint, out = make_checkpoint(root / "checkpoint", "edge", "policy-droid", "tiny", seed=7), root / "bundle"
    # With and without actions, from one image on: what the generator makes besides
    shapes = dataclasses.replace(MINI_POLICY, min_latent_frames=1, min_actions=0)
    options = ExportOptions(shapes, parse_variants("primitive-fp32"), "none", ("reasoner",))
    export_bundle(Checkpoint.open(checkpoint), out, options)
    add_engines(out, GRAPHS)
    return out


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedGpu]:
    gpu = SharedGpu(monkeypatch)
    yield gpu
    gpu.check_closed()
    assert not any(thread.name == "motedge-thinker" for thread in threading.enumerate())


@pytest.fixture
def write(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the reasoner choose the tokens of a text, whatever its logits say; everything else stays as it is."""
    opened = Bundle.open(bundle)
    codec = TextCodec.read(opened.path("tokenizer"))
    eos = opened.manifest.model["special_tokens"]["eos"]

    def script(text: str) -> None:
        tokens = [*codec.encode(text).tolist(), eos]

        def chosen(sampler: Sampler, logits: np.ndarray) -> int:
            said: list[int] = sampler.__dict__.setdefault("said", [])
            said.append(0)
            return int(tokens[len(said) - 1])

        monkeypatch.setattr(Sampler, "next", chosen)

    return script


def load(bundle: Path, engine: str = "tensorrt", gpu: Optional[GpuOptions] = None, **reason: Any) -> ReasonedPolicy:
    return load_reasoned_policy(bundle, ReasonOptions(**reason), engine=engine, gpu=gpu, **SETTINGS)


def on_the_host(bundle: Path, **reason: Any) -> ReasonedPolicy:
    return load_reasoned_policy(bundle, ReasonOptions(**reason), **SETTINGS)


def finish(acting: ReasonedPolicy) -> None:
    end = time.monotonic() + IN_TIME_S
    while acting.think():
        assert time.monotonic() < end
        time.sleep(1e-3)


@contextlib.contextmanager
def stuck_step(towers: Any) -> Iterator[threading.Event]:
    """The next step of a tower does not end before this does; tells when it has begun."""
    entered, go_on, step = threading.Event(), threading.Event(), towers._und.step

    def slow(*arguments: Any) -> Any:
        entered.set()
        assert go_on.wait(IN_TIME_S)
        return step(*arguments)

    towers._und.step = slow
    try:
        yield entered
    finally:
        go_on.set()
        towers._und.step = step


@pytest.mark.parametrize("engine", ["tensorrt", "onnxruntime-cuda"])
def test_words_and_actions_of_the_host(bundle: Path, gpu: SharedGpu, engine: str) -> None:
    """What random weights write is no plan; the words are the model's own, and so is the plain prompt's chunk."""
    with on_the_host(bundle, max_tokens=12) as host, load(bundle, engine, max_tokens=12) as acting:
        for text, seed in ((CUP, 3), (DOOR, 4)):
            expected, chunk = (policy.act(observation(text), seed=seed) for policy in (host, acting))
            assert chunk.reasoning.answer == expected.reasoning.answer and chunk.reasoning.tokens > 0
            np.testing.assert_allclose(chunk.actions, expected.actions, rtol=0, atol=TOLERANCE)
            assert chunk.details["prompts_read_by"] == "und primitive-fp32"


@pytest.mark.parametrize("engine", ["tensorrt", "onnxruntime-cuda"])
@pytest.mark.parametrize("spread", [{"slice_tokens": 4}, {"slice_ms": 5.0}, {"background": True}])
def test_the_change_over(
    bundle: Path, gpu: SharedGpu, write: Callable[[str], None], engine: str, spread: dict[str, Any]
) -> None:
    """Before it each tick is the plain prompt's, bit for bit; the first with the plan makes no prefill; after it each
    is the plan's."""
    if engine == "onnxruntime-cuda" and "background" in spread:
        pytest.skip("refused there; see below")
    write(PLAN)
    with on_the_host(bundle) as host:
        expected = host.act(observation(CUP), seed=3)
    with load(bundle, engine, every=1000, **spread) as acting:
        chunks, end = [], time.monotonic() + IN_TIME_S
        while not chunks or (chunks[-1].reasoning.plan is None and time.monotonic() < end):
            chunks.append(acting.act(observation(CUP), seed=3))
            acting.think()
        after = acting.act(observation(CUP), seed=3)
    plain, planned = chunks[:-1], chunks[-1]
    assert len(plain) > 1 and planned.reasoning.prompt == expected.reasoning.prompt
    assert all(np.array_equal(chunk.actions, plain[0].actions) for chunk in plain)
    # Both branches once; the plan's prompt was made ready between ticks or beside them
    assert [chunk.details["prefills"] for chunk in (*chunks, after)] == [2, *[0] * len(chunks)]
    assert planned.details["und_len"] > plain[-1].details["und_len"]
    if engine == "tensorrt":
        # Of a length that no tick had before; it was rehearsed
        assert planned.details["launch"] == "one CUDA graph"
    np.testing.assert_allclose(planned.actions, expected.actions, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(planned.actions, after.actions)
    assert np.abs(planned.actions - plain[0].actions).max() > 1e-3


def test_the_towers_weights_stand_on_the_gpu_once(bundle: Path, gpu: SharedGpu) -> None:
    with load(bundle, max_tokens=4) as acting:
        acting.act(observation(CUP), seed=1)
        held = acting.memory_bytes()
        weights = [purpose for purpose in held if "weights of" in purpose]
        assert sorted(weights) == [
            "reasoner: weights of und",
            "reasoner: weights of vision_encoder",
            "weights of gen_step",
            "weights of solver_step",
            "weights of vae_encoder",
        ]
        # One engine each: nothing else was loaded
        names = [len(stage_of(handle.library).engines) for handle in gpu.handles]
        assert names == [2, 3]
        assert "prompt inputs" not in held and held["prompt K and V"] > 0
    # The streams: the policy's before the reasoner's
    assert [handle._streams[0x5000].priority for handle in gpu.handles] == ["low", "high"]


def test_thinking_in_the_background_while_ticks_run(bundle: Path, gpu: SharedGpu) -> None:
    """A step of the reasoner that does not end holds no tick up; its words are those of a reply without a break."""
    with on_the_host(bundle, max_tokens=24) as host:
        expected = host.act(observation(CUP), seed=3).reasoning
    with load(bundle, every=1000, background=True, max_tokens=24) as acting:
        reasoner: Any = acting._reasoner
        assert acting.policy.prepares_aside
        # The prompt is read and the tick captured before anything is thought
        first = [acting.policy.act(observation(CUP), seed=3) for _ in range(3)][-1]
        with stuck_step(reasoner.device) as begun:
            ticks = [acting.act(observation(CUP), seed=3)]
            assert begun.wait(IN_TIME_S)
            ticks += [acting.act(observation(CUP), seed=3) for _ in range(4)]
            assert acting.think()
        for chunk in ticks:
            np.testing.assert_array_equal(chunk.actions, first.actions)
            assert chunk.reasoning.problem.startswith("no reply to this instruction is written yet")
        finish(acting)
        said = acting.act(observation(CUP), seed=3).reasoning
    assert (said.answer, said.tokens, said.ended) == (expected.answer, expected.tokens, expected.ended)


def test_a_new_instruction_waits_for_one_step_alone(bundle: Path, gpu: SharedGpu, write: Callable[[str], None]) -> None:
    """Its prompt is read by the tower that the thinker uses: whoever asked first is first."""
    write(PLAN)
    with load(bundle, every=1000, background=True) as acting:
        acting.act(observation(CUP), seed=3)
        steps, device = list[int](), acting._reasoner.device  # type: ignore[attr-defined]
        step = device._und.step
        device._und.step = lambda *arguments: (steps.append(0), step(*arguments))[1]
        for text in (DOOR, "Close it.", "Open it again."):
            chunk = acting.act(observation(text), seed=3)
            assert chunk.reasoning.fell_back and chunk.details["prefills"] == 1
        finish(acting)
        assert acting.act(observation("Open it again."), seed=3).reasoning.plan == json.loads(PLAN)
    assert steps


def test_under_a_deadline(bundle: Path, gpu: SharedGpu, write: Callable[[str], None]) -> None:
    write(PLAN)
    for spread in ({"slice_tokens": 9}, {"background": True}):
        reasoned = load(bundle, every=1000, **spread)
        with with_deadlines(reasoned, deadline_ms=60_000) as acting:
            chunk = acting.act(observation(CUP), seed=3)
            assert chunk.reasoning.fell_back
            finish(reasoned)
            chunk = acting.act(observation(CUP), seed=3)
            assert chunk.reasoning.plan == json.loads(PLAN) and chunk.details["deadline"]["met"]


def test_frames_on_the_gpu_are_seen_by_the_reasoner(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[str], None]
) -> None:
    from motedge.runtime.cuda.frames import DeviceFrame
    from motedge.runtime.kernels.library import KernelLibrary
    from motedge.runtime.kernels.record import KernelRecord

    gpu = SharedGpu(monkeypatch, kernels=KERNELS)
    record = KernelRecord("", "", 1, "13.0", (90,), 120)
    monkeypatch.setattr(KernelLibrary, "find", lambda cuda: (KernelLibrary(cuda, b"fatbin", record), None))
    write(PLAN)
    pixels = np.random.RandomState(4).randint(0, 256, (90, 160, 3)).astype(np.uint8)
    on_host = dataclasses.replace(observation(CUP), image=None, views={"wrist": pixels})
    seen: list[np.ndarray] = []
    with load(bundle, every=1000, slice_tokens=9) as acting:
        reasoner: Any = acting._reasoner
        prompt = reasoner.prompt
        reasoner.prompt = lambda messages, images, **more: (seen.extend(images), prompt(messages, images, **more))[1]
        handle = gpu.handles[-1]
        with handle.current():
            block = handle.allocate(pixels.nbytes, "a camera's frame")
            handle.view(block.pointer, pixels.shape, np.uint8)[...] = pixels
        on_gpu = dataclasses.replace(on_host, views={"wrist": DeviceFrame(block.pointer, *pixels.shape[:2])})
        first = acting.act(on_gpu, seed=3)
        # The camera writes the next frame there, before anything is thought
        with handle.current():
            handle.view(block.pointer, pixels.shape, np.uint8)[...] = 0
        finish(acting)
        block.free()
        expected = acting.act(on_host, seed=3)
        np.testing.assert_array_equal(seen[0], acting.policy.see(on_host)[0])
    assert first.missing_views == ("left", "right") and expected.reasoning.plan == json.loads(PLAN)
    gpu.check_closed()


@pytest.mark.parametrize("engine", ["tensorrt", "onnxruntime-cuda"])
def test_an_image_from_a_caption_that_the_reasoner_wrote(
    bundle: Path, gpu: SharedGpu, write: Callable[[str], None], tmp_path: Path, engine: str
) -> None:
    caption = {"subjects": "a red cup", "lighting": "dim"}
    write(json.dumps(caption))
    made: dict[str, Any] = {}
    for backend in ("onnxruntime", engine):
        target = tmp_path / f"{backend}.json"
        command = ["generate", "text2image", str(bundle), "--prompt", "a cup", "--reason", "--engine", backend]
        options = ["--check", "size", "--threads", "1", "--steps", "2", "--seed", "5", "--out", str(target)]
        assert main([*command, *options]) == 0
        made[backend] = json.loads(target.read_text(encoding="utf-8"))
    host, device = made.values()
    assert device["reasoning"]["plan"] == caption and device["prompt"] == host["prompt"]
    assert device["prompt_tokens"] == host["prompt_tokens"]


def test_latents_from_the_reasoners_tower(bundle: Path, gpu: SharedGpu) -> None:
    request = GenerateRequest("text2image", "a red cup", seed=5, sampler={"steps": 2})
    with load_generator(bundle, check="size", threads=1) as host:
        expected = host.generate(request).latents
    with (
        motedge.load_reasoner(bundle, engine="tensorrt", check="size") as reasoner,
        load_generator(bundle, engine="tensorrt", check="size", reasoner=reasoner) as generator,
    ):
        for _ in range(2):
            np.testing.assert_allclose(generator.generate(request).latents, expected, rtol=0, atol=1e-4)
        assert "weights of und_prefill" not in generator.memory_bytes()


def test_nan_and_failures_of_the_reasoner_stop_nobody(
    bundle: Path, gpu: SharedGpu, write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(PLAN)
    with load(bundle, every=1, background=True) as acting:
        good = acting.act(observation(CUP), seed=3)
        finish(acting)
        device = acting._reasoner.device  # type: ignore[attr-defined]
        step = device._und.step
        for broken, words in (
            (lambda *_: np.full(8, np.nan, np.float32), "NaN or infinity"),
            (lambda *_: (_ for _ in ()).throw(CudaError("the launch failed")), "the launch failed"),
        ):
            device._und.step = broken
            acting.act(observation(CUP), seed=3)
            finish(acting)
            said = acting.act(observation(CUP), seed=3)
            assert words in str(said.reasoning.problem)
            np.testing.assert_array_equal(said.actions, good.actions)
            device._und.step = step
            finish(acting)
        acting.act(observation(CUP), seed=3)
        finish(acting)
        assert acting.act(observation(CUP), seed=3).reasoning.plan == json.loads(PLAN)


def test_no_memory_for_the_plans_prompt_is_told_and_the_next_is_right(
    bundle: Path, gpu: SharedGpu, write: Callable[[str], None]
) -> None:
    write(PLAN)
    with load(bundle, every=1000, slice_tokens=1000) as acting:
        acting.act(observation(CUP), seed=3)
        gpu.handles[-1].inject("allocate", OutOfDeviceMemoryError("the GPU has no room for prompt K and V"))
        finish(acting)
        said = acting.act(observation(CUP), seed=3).reasoning
        assert said.fell_back and "the GPU has no room for prompt K and V" in said.problem
        acting.act(observation(DOOR), seed=3)
        finish(acting)
        assert acting.act(observation(DOOR), seed=3).reasoning.plan == json.loads(PLAN)


def test_a_lost_context_is_told_and_closes(bundle: Path, gpu: SharedGpu) -> None:
    """The tower that reads the prompts is lost too: the policy is not rebuilt around it."""
    with load(bundle, every=1000, slice_tokens=3) as acting:
        acting.act(observation(CUP), seed=3)
        gpu.handles[-1].inject("graph launch", StickyCudaError("an illegal memory access"))
        for _ in range(2):
            with pytest.raises(StickyCudaError, match="illegal memory access"):
                for _ in range(3):
                    acting.act(observation(CUP), seed=3)
    for handle in gpu.handles:
        # What is in a lost context can't be freed in order
        handle.left.clear()


def test_what_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SharedGpu(monkeypatch)
    with pytest.raises(UsageError, match="written in the background") as refused:
        load(bundle, "onnxruntime-cuda", background=True)
    assert "the calls of other threads fail" in str(refused.value)
    gpu.check_closed()
    with motedge.load_reasoner(bundle, check="size", threads=1) as reasoner:
        with pytest.raises(UsageError, match="can't share this reasoner's weights") as refused:
            motedge.load_policy(bundle, engine="tensorrt", reasoner=reasoner, **SETTINGS)
        assert "one on the host" in str(refused.value)
    reasoner = motedge.load_reasoner(bundle, engine="tensorrt", check="size")
    with reasoner, pytest.raises(UsageError, match="a reasoner on GPU 1"):
        motedge.load_policy(bundle, engine="tensorrt", reasoner=reasoner, gpu=GpuOptions(ordinal=1), **SETTINGS)
    gpu = SharedGpu(monkeypatch, total_bytes=12 << 20)
    with pytest.raises(OutOfDeviceMemoryError, match="no room for"):
        load(bundle)
    gpu.check_closed()
