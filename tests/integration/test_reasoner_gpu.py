"""A bundle's reasoner on a simulated GPU, through load_reasoner: token for token as on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_cuda import HostCuda
from shared_gpu import add_engines
from tensorrt_runtime_stub import stage_of, stub_library
from tiny import MINI

import motedge
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import BundleError, ContractError, UsageError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.backends.onnxruntime_cuda import engine as ort_cuda
from motedge.runtime.backends.onnxruntime_cuda.provider import Provider
from motedge.runtime.backends.tensorrt import find
from motedge.runtime.cuda.errors import CudaError, EngineError, OutOfDeviceMemoryError
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.policy import GpuOptions
from motedge.runtime.reasoner import device_loader
from motedge.runtime.reasoner.bundle_reasoner import BundleReasoner, question
from motedge.runtime.reasoner.clip import Clip
from motedge.runtime.reasoner.events import LENGTH, Finished, Pause
from motedge.runtime.reasoner.sampling import SamplingOptions

GREEDY = SamplingOptions(max_new_tokens=24)
DRAWN = SamplingOptions(max_new_tokens=24, temperature=0.9, top_k=20, top_p=0.9, presence_penalty=1.0, seed=3)
VERSION = "10.13"
TEXT = "Put the red cube in the bowl. What next?"


@pytest.fixture(scope="module", params=("edge", "nano"))
def bundle(request: pytest.FixtureRequest, checkpoints: dict[str, Path], tmp_path_factory: Any) -> Path:
    """A bundle with the reasoner, and "engines" of it that onnxruntime computes."""
    root = Path(tmp_path_factory.mktemp("reasoner-gpu") / request.param)
    options = ExportOptions(MINI, parse_variants("primitive-fp32"), "none", ("reasoner",))
    export_bundle(Checkpoint.open(checkpoints[request.param]), root, options)
    add_engines(root, ("und", "vision_encoder"))
    return root


class Gpu:
    """A simulated GPU in the place of the machine's; what is left on it when it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total_bytes: int = 1 << 31) -> None:
        self.cuda = HostCuda(total_bytes, deferred=True)
        self.library = stub_library(VERSION, self.cuda)
        self.left: dict[str, int] = {}
        close = self.cuda.close
        self.cuda.close = lambda: (self.left.update(self.cuda.ledger), close())  # type: ignore[assignment]
        monkeypatch.setattr(device_loader, "open_cuda", lambda *_, **__: self.cuda)
        monkeypatch.setattr(find, "find_library", lambda name: self.library)
        provider = Provider("CPUExecutionProvider", "cpu", self.cuda.enqueue)
        monkeypatch.setattr(ort_cuda, "Provider", lambda: provider)

    def check_closed(self) -> None:
        assert self.cuda.closed and set(self.left) <= {PINNED}
        assert not stage_of(self.library).contexts and not stage_of(self.library).engines


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    gpu = Gpu(monkeypatch)
    yield gpu
    gpu.check_closed()


@pytest.fixture(scope="module")
def expected(bundle: Path) -> Callable[..., Finished]:
    """What the host answers."""

    def ask(*asked: Any, **options: Any) -> Finished:
        with motedge.load_reasoner(bundle, check="size", threads=1) as reasoner:
            return _ask(reasoner, *asked, **options)

    return ask


def _ask(reasoner: BundleReasoner, *asked: Any, **options: Any) -> Finished:
    done = list(reasoner.ask(*asked, **options))[-1]
    assert isinstance(done, Finished)
    return done


def _image(seed: int = 0, size: tuple[int, int] = (90, 130)) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)


def _clip() -> Clip:
    frames = np.random.RandomState(7).randint(0, 256, (5, 64, 96, 3)).astype(np.uint8)
    return Clip(frames, (0, 2, 4, 6, 8), 4.0)


@pytest.mark.capability(mode="reason_text", family="{bundle}", backend="tensorrt", proof="simulated")
@pytest.mark.capability(mode="reason_image", family="{bundle}", backend="tensorrt", proof="simulated")
@pytest.mark.capability(mode="reason_video", family="{bundle}", backend="tensorrt", proof="simulated")
def test_tokens_as_on_the_host(bundle: Path, gpu: Gpu, expected: Callable[..., Finished]) -> None:
    asked: tuple[tuple[Any, ...], ...] = ((TEXT,), (TEXT, [_image(), _image(1)]), (TEXT, [], [_clip()]))
    with motedge.load_reasoner(bundle, engine="tensorrt", capacity=1024) as reasoner:
        for parts, options in ((asked[0], GREEDY), (asked[0], DRAWN), (asked[1], GREEDY), (asked[2], GREEDY)):
            done = _ask(reasoner, *parts, options=options)
            assert done.token_ids == expected(*parts, options=options).token_ids
        assert reasoner.launch == "one CUDA graph"
        held = reasoner.memory_bytes()
    assert held["weights of und"] > 0 and held["the reasoner's K and V"] > 0 and held["activations"] > 0
    assert "vision_encoder: workspace" not in held


def test_captured_once_and_no_growth_over_200_tokens(bundle: Path, gpu: Gpu) -> None:
    held = []
    with motedge.load_reasoner(bundle, engine="tensorrt", capacity=512) as reasoner:
        reasoner._reasoner._stop_tokens = frozenset()
        prompt = reasoner.prompt(question(TEXT))
        for step in reasoner.steps(prompt, SamplingOptions(max_new_tokens=203)):
            if isinstance(step, Pause) and step.tokens > 2:
                held.append((dict(gpu.cuda.ledger), len(stage_of(gpu.library).contexts)))
        captured = len(gpu.cuda.graphs)
        list(reasoner.ask("another text", options=GREEDY))
        assert captured == len(gpu.cuda.graphs) == 1
    assert len(held) == 201 and all(memory == held[0] for memory in held)


@pytest.mark.capability(mode="reason_image", family="{bundle}", backend="onnxruntime-cuda", proof="simulated")
def test_onnxruntime_captures_by_itself(bundle: Path, gpu: Gpu, expected: Callable[..., Finished]) -> None:
    with motedge.load_reasoner(bundle, engine="onnxruntime-cuda", variant="primitive-fp32", threads=1) as reasoner:
        for asked in ((TEXT,), (TEXT, [_image()])):
            assert _ask(reasoner, *asked, options=GREEDY).token_ids == expected(*asked, options=GREEDY).token_ids
        assert reasoner.launch.startswith("piece by piece: onnxruntime")
        assert reasoner.memory_bytes()["the reasoner's K and V"] > 0
        with pytest.raises(ContractError, match="has no output"):
            reasoner.und_engine.context({"S": 1, "P": 2}).output("nothing")


def test_without_a_graph(bundle: Path, gpu: Gpu, expected: Callable[..., Finished]) -> None:
    options = GpuOptions(cuda_graph=False, priority="low")
    with motedge.load_reasoner(bundle, engine="tensorrt", gpu=options, check="size") as reasoner:
        assert _ask(reasoner, TEXT, options=GREEDY).token_ids == expected(TEXT, options=GREEDY).token_ids
        assert reasoner.launch == "piece by piece: switched off"
    assert not gpu.cuda.graphs


def test_an_image_that_moves_the_workspace(bundle: Path, gpu: Gpu, expected: Callable[..., Finished]) -> None:
    """One that needs more than the tower's largest step; the captured graph held the old address."""
    with motedge.load_reasoner(bundle, engine="tensorrt", capacity=512) as reasoner:
        before = reasoner.memory_bytes()["activations"]
        for asked in ((TEXT,), (TEXT, [_image(0, (700, 500))]), (TEXT,)):
            assert _ask(reasoner, *asked, options=GREEDY).token_ids == expected(*asked, options=GREEDY).token_ids
        assert reasoner.launch == "one CUDA graph"
        assert reasoner.memory_bytes()["activations"] >= before


def test_a_reply_that_was_left_and_one_that_failed(bundle: Path, gpu: Gpu, expected: Callable[..., Finished]) -> None:
    with motedge.load_reasoner(bundle, engine="tensorrt") as reasoner:
        for _, _event in zip(range(4), reasoner.ask("something else", options=GREEDY)):
            pass
        right = expected(TEXT, options=GREEDY).token_ids
        assert _ask(reasoner, TEXT, options=GREEDY).token_ids == right
        stage_of(gpu.library).fail["execute_async_v3"] = "cask convolution failed"
        with pytest.raises(EngineError, match=r"und[\s\S]*cask convolution failed"):
            _ask(reasoner, TEXT, options=GREEDY)
        stage_of(gpu.library).fail.clear()
        assert _ask(reasoner, TEXT, options=GREEDY).token_ids == right
        gpu.cuda.inject("graph launch", CudaError("the launch failed"), after=3)
        with pytest.raises(CudaError, match="the launch failed"):
            _ask(reasoner, TEXT, options=GREEDY)
        assert _ask(reasoner, TEXT, options=GREEDY).token_ids == right


def test_what_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(kind: type[Exception], match: str, total_bytes: int = 1 << 31, **options: Any) -> None:
        gpu = Gpu(monkeypatch, total_bytes)
        with pytest.raises(kind, match=match):
            motedge.load_reasoner(bundle, engine="tensorrt", **options)
        gpu.check_closed()

    refused(ContractError, "another range of P", capacity=10**6)
    refused(BundleError, "fused-fp16|built", variant="fused-fp16")
    refused(OutOfDeviceMemoryError, "no room for", total_bytes=1 << 20)
    gpu = Gpu(monkeypatch)
    with motedge.load_reasoner(bundle, engine="tensorrt", capacity=40) as small:
        with pytest.raises(UsageError, match="too long"):
            list(small.ask("go " * 60))
        done = _ask(small, "go", options=SamplingOptions(max_new_tokens=60))
        assert done.reason != LENGTH or len(done.token_ids) < 60
    gpu.check_closed()
