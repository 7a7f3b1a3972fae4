"""Every mode of the generator on a simulated GPU, through load_generator: as on the host, and nothing left behind."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_cuda import HostCuda
from shared_gpu import add_engines
from tensorrt_runtime_stub import stage_of, stub_library
from tiny import MINI_MEDIA

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.cli.main import main
from motedge.errors import BundleError, UsageError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.backends.onnxruntime_cuda import engine as ort_cuda
from motedge.runtime.backends.onnxruntime_cuda.provider import Provider
from motedge.runtime.backends.tensorrt import find
from motedge.runtime.cuda.errors import EngineError, OutOfDeviceMemoryError, StickyCudaError
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.generate import Generated, GenerateRequest, Generator, device_parts, load_generator
from motedge.runtime.policy import GpuOptions
from motedge.runtime.step_view import StepView

pytestmark = pytest.mark.slow
EXTRAS = {
    "edge": ("vae-decoder-stream", "vae-encoder-stream"),
    "nano": ("vae-decoder", "vae-encoder-clip", "sound"),
}
VERSION, VARIANT, STEPS, FRAMES = "10.13", "primitive-fp32", 2, 9
ROWS, COLUMNS = MINI_MEDIA.canvas
# Relative to the largest element: fp32 on both sides, another order of sums
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=("edge", "nano"))
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the video's graphs, and "engines" of them that onnxruntime computes.

    Edge's work in chunks, Nano's on whole videos; Nano has sound.
    """
    family, folder = request.param, tmp_path_factory.mktemp("generate-gpu")
    extras = EXTRAS[family]
    checkpoint = Checkpoint.open(make_checkpoint(folder / "checkpoint", family, "base", "tiny", seed=7))
    root: Path = folder / family
    export_bundle(checkpoint, root, ExportOptions(MINI_MEDIA, parse_variants(VARIANT), "none", extras))
    add_engines(root, list(Bundle.open(root).manifest.graphs))
    return root


class Gpu:
    """A simulated GPU in the place of the machine's; what is left on it when it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total_bytes: int = 1 << 32) -> None:
        self.cuda = HostCuda(total_bytes, deferred=True)
        self.library = stub_library(VERSION, self.cuda)
        self.left: dict[str, int] = {}
        close = self.cuda.close
        self.cuda.close = lambda: (self.left.update(self.cuda.ledger), close())  # type: ignore[assignment]
        monkeypatch.setattr(device_parts, "open_cuda", lambda *_, **__: self.cuda)
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


def picture(seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)


CLIP = [picture(seed) for seed in range(FRAMES)]
ACTIONS = np.random.RandomState(5).uniform(-1, 1, (FRAMES - 1, 9)).astype(np.float32)
GIVEN: dict[str, dict[str, Any]] = {
    "text2image": {},
    "text2video": {"frames": FRAMES},
    "image2video": {"frames": FRAMES, "image": CLIP[0]},
    "video2video": {"frames": 13, "video": CLIP},
    "forward_dynamics": {"image": CLIP[0], "actions": ACTIONS, "embodiment": "av"},
    "inverse_dynamics": {"video": CLIP, "embodiment": "av"},
    "policy": {"frames": FRAMES, "image": CLIP[0], "embodiment": "av"},
}


def ask(mode: str, seed: int = 3, guidance: float = 3.0, sampler: Any = None, **given: Any) -> GenerateRequest:
    settings = {"steps": STEPS, "guidance": guidance, "shift": 5.0, **(sampler or {})}
    return GenerateRequest(mode, "A red cube on a table.", seed=seed, sampler=settings, **{**GIVEN[mode], **given})


@dataclass(frozen=True)
class Answer:
    """What was made, and how it looks."""

    made: Generated
    pictures: np.ndarray


class Host:
    """What the host answers, asked once."""

    def __init__(self, bundle: Path) -> None:
        self.bundle, self._kept = bundle, dict[str, Answer]()
        self._opened = contextlib.ExitStack()
        self._generators: dict[bool, Generator] = {}

    def answer(self, request: GenerateRequest) -> Answer:
        key = repr((request.mode, request.seed, request.sound, request.frames, sorted(request.sampler.items())))
        if key not in self._kept:
            if request.sound not in self._generators:
                opened = load_generator(self.bundle, check="size", threads=1, sound=request.sound)
                self._generators[request.sound] = self._opened.enter_context(opened)
            generator = self._generators[request.sound]
            made = generator.generate(request)
            self._kept[key] = Answer(made, np.concatenate(list(generator.frames(made.latents))))
        return self._kept[key]

    def close(self) -> None:
        self._opened.close()


@pytest.fixture(scope="module")
def host(bundle: Path) -> Iterator[Host]:
    made = Host(bundle)
    yield made
    made.close()


def close_to(ours: Any, theirs: Any) -> None:
    assert (ours is None) == (theirs is None)
    if ours is not None:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(theirs).max())))


def check(generator: Generator, request: GenerateRequest, host: Host, watch: Any = None) -> Generated:
    made, expected = generator.generate(request, watch), host.answer(request)
    for name in ("latents", "actions", "sound"):
        close_to(getattr(made, name), getattr(expected.made, name))
    pictures = np.concatenate(list(generator.frames(made.latents)))
    assert np.abs(pictures.astype(int) - expected.pictures).max() <= 1
    return made


@pytest.mark.capability(mode="{mode}", family="{bundle}", backend="tensorrt", proof="simulated")
@pytest.mark.capability(mode="{mode}", family="{bundle}", backend="tensorrt-rtx", proof="simulated")
@pytest.mark.parametrize("mode", GIVEN)
def test_as_on_the_host(bundle: Path, gpu: Gpu, host: Host, mode: str) -> None:
    with load_generator(bundle, engine="tensorrt", check="size") as generator:
        launches = [check(generator, ask(mode), host).counters.launch for _ in range(3)]
        # The decoder may have moved the workspace after the first
        assert (launches[0], launches[-1]) == ("piece by piece: first of its kind", "one CUDA graph")
        held = generator.memory_bytes()
    assert held["weights of gen_step"] > 0 and held["weights of und_prefill"] > 0 and held["activations"] > 0
    if bundle.name == "edge":
        assert held["weights of vae_decoder_next"] > 0 and held["chunks of vae_decoder_first"] > 0
    else:
        assert held["weights of vae_decoder"] > 0


@pytest.mark.capability(mode="{mode}", family="{bundle}", backend="onnxruntime-cuda", proof="simulated")
@pytest.mark.parametrize("mode", GIVEN)
def test_onnxruntime_in_one_thread(bundle: Path, gpu: Gpu, host: Host, mode: str) -> None:
    """Called from several threads, and its watch asks for previews."""
    found: list[Any] = []
    with load_generator(bundle, engine="onnxruntime-cuda", variant=VARIANT, check="size", threads=1) as generator:
        shown = []

        def watch(view: StepView) -> None:
            shown.append(generator.preview(view.clean_vision()).shape)
            with pytest.raises(UsageError, match="own watch"):
                generator.generate(ask(mode))

        check(generator, ask(mode), host, watch)
        assert shown == [(ROWS, COLUMNS, 3)] * STEPS
        other = threading.Thread(target=lambda: found.append(check(generator, ask(mode), host)))
        other.start()
        other.join()
        assert found[0].counters.launch.startswith("piece by piece: onnxruntime")
    with pytest.raises(UsageError, match="closed"):
        generator.generate(ask(mode))


@pytest.mark.capability(mode="sound", family="{bundle}", backend="{engine}", proof="simulated")
@pytest.mark.parametrize("engine", ["tensorrt", "onnxruntime-cuda"])
@pytest.mark.parametrize("bundle", ["nano"], indirect=True)
def test_sound(bundle: Path, gpu: Gpu, host: Host, engine: str) -> None:
    with load_generator(bundle, engine=engine, variant=VARIANT, check="size", sound=True, threads=1) as generator:
        for frames in (FRAMES, 17):
            request = ask("text2video", sound=True, frames=frames)
            for _ in range(2):
                made = check(generator, request, host)
            assert made.sound is not None
        ours, rate = generator.waveform(made.sound)
    theirs, _ = host._generators[True].waveform(host.answer(request).made.sound)
    close_to(ours, theirs)
    assert rate == 48000


def test_being_watched(bundle: Path, gpu: Gpu, host: Host) -> None:
    """Previews while a request runs, on the same stream and workspace, and chunks of one video beside another's."""
    with load_generator(bundle, engine="tensorrt", check="size") as generator:
        first = generator.generate(ask("text2video"))
        beside, pictures = generator.frames(first.latents), []
        pictures.append(next(beside))
        seen: list[np.ndarray] = []

        def watch(view: StepView) -> None:
            seen.append(generator.preview(view.clean_vision()))
            if view.step == 0:
                pictures.extend(itertools.islice(beside, 1))

        made = check(generator, ask("text2video"), host, watch)
        pictures.extend(beside)
        assert made.counters.launch == "step by step: each is shown" and len(seen) == STEPS
        whole = np.concatenate(list(generator.frames(first.latents)))
        np.testing.assert_array_equal(np.concatenate(pictures), whole)


@pytest.mark.parametrize("sampler", [{}, {"step_cache": "sea:0.3"}], ids=["device", "host"])
def test_a_preview_that_moves_the_workspace(bundle: Path, gpu: Gpu, host: Host, sampler: dict[str, Any]) -> None:
    """The first one opens the decoder, whose workspace is larger, in the middle of a request."""
    request = ask("text2image", sampler=sampler)
    with load_generator(bundle, engine="tensorrt", check="size") as generator:
        generator.generate(request)
        before, shown = generator.memory_bytes()["activations"], []
        made = generator.generate(request, lambda view: shown.append(generator.preview(view.clean_vision())))
        assert generator.memory_bytes()["activations"] > before and len(shown) == STEPS
        close_to(made.latents, host.answer(request).made.latents)
        check(generator, request, host)


SAMPLERS = [{"step_cache": "every:2", "steps": 4}, {"step_cache": "sea:0.3", "steps": 4}, {"guidance": 1.0}]


@pytest.mark.capability(mode="step_cache", family="{bundle}", backend="tensorrt", proof="simulated")
@pytest.mark.parametrize("sampler", SAMPLERS, ids=["fixed", "sea", "plain"])
def test_samplers(bundle: Path, gpu: Gpu, host: Host, sampler: dict[str, Any]) -> None:
    with load_generator(bundle, engine="tensorrt", check="size") as generator:
        made = check(generator, ask("image2video", sampler=sampler), host)
        assert made.counters.forwards == host.answer(ask("image2video", sampler=sampler)).made.counters.forwards
        assert made.counters.launch.startswith("step by step: SeaCache" if "sea" in str(sampler) else "piece by piece")


def test_a_distilled_model(bundle: Path, gpu: Gpu) -> None:
    answers = []
    for engine in ("onnxruntime", "tensorrt"):
        with load_generator(bundle, engine=engine, check="size", threads=1) as generator:
            generator._distilled = (1.0, 0.6, 0.2)
            request = GenerateRequest("text2image", "A red cube.", seed=4)
            answers.append(generator.generate(request))
    close_to(answers[1].latents, answers[0].latents)
    assert answers[1].counters.launch.startswith("step by step: a distilled model")


def test_the_command(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """Nobody watches without a terminal, so that previews alone take the steps apart."""
    for options, launch in (
        ([], "piece by piece: first of its kind"),
        (["--preview", "1"], "step by step: each is shown"),
        (["--no-cuda-graph", "--priority", "low"], "piece by piece: switched off"),
    ):
        gpu, out = Gpu(monkeypatch), tmp_path / "cube.png"
        words = ["text2image", str(bundle), "--engine", "tensorrt", "--check", "size", "--prompt", "A cube", *options]
        assert main(["generate", *words, "--steps", "2", "--out", str(out), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["counters"]["launch"] == launch
        assert out.is_file() and (tmp_path / "cube.png.preview.png").is_file() == ("--preview" in options)
        for path in tmp_path.iterdir():
            path.unlink()
        gpu.check_closed()


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
def test_every_graph_is_built(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    """By the real TensorRT-RTX, which needs no GPU for it: from no action rows and one latent frame on."""
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle", ignore=shutil.ignore_patterns("engines")))
    assert main(["build", str(copy), "--target", "rtx-5090", "--variant", VARIANT, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["engines"]
    assert {engine["graph"] for engine in made} == set(Bundle.open(copy).manifest.graphs)
    assert all(engine["bytes"] > 0 for engine in made)


def test_many_requests_do_not_grow(bundle: Path, gpu: Gpu, host: Host) -> None:
    held = []
    with load_generator(bundle, engine="tensorrt", check="size", gpu=GpuOptions(cuda_graph=False)) as generator:
        for _ in range(3):
            for mode in ("text2image", "image2video", "inverse_dynamics", "text2video"):
                made = generator.generate(ask(mode))
                iterator = generator.frames(made.latents)
                next(iterator)
                # Left before its end
                del iterator
            held.append(dict(gpu.cuda.ledger))
        assert made.counters.launch == "piece by piece: switched off"
        check(generator, ask("text2video"), host)
    assert held[0] == held[-1]


def test_after_failures(bundle: Path, gpu: Gpu, host: Host) -> None:
    """What failed is named, and the next request is right."""
    with load_generator(bundle, engine="tensorrt", check="size") as generator:
        stage = stage_of(gpu.library)
        stage.fail["execute_async_v3"] = "cask convolution failed"
        with pytest.raises(EngineError, match=r"vae_encoder[\s\S]*cask convolution failed"):
            generator.generate(ask("image2video"))
        with pytest.raises(EngineError, match=r"und_prefill[\s\S]*cask convolution failed"):
            generator.generate(ask("text2video"))
        stage.fail.clear()
        gpu.cuda.inject("allocate", OutOfDeviceMemoryError("the GPU has no room"), after=1)
        with pytest.raises(OutOfDeviceMemoryError):
            generator.generate(ask("text2video"))
        made = check(generator, ask("text2video"), host)
        stage.fail["execute_async_v3"] = "cask convolution failed"
        with pytest.raises(EngineError, match="vae_decoder"):
            list(generator.frames(made.latents))
        stage.fail.clear()
        latents = made.latents.copy()
        latents[0, 1] = np.nan
        with pytest.raises(NonFiniteError, match="latents"):
            list(generator.frames(latents))
        check(generator, ask("text2video"), host)


def test_a_lost_context_is_told_and_closes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    with pytest.raises(StickyCudaError, match="illegal"):  # noqa: SIM117
        with load_generator(bundle, engine="tensorrt", check="size") as generator:
            gpu.cuda.inject("synchronize", StickyCudaError("an illegal address"))
            generator.generate(ask("text2image"))
    assert gpu.cuda.closed


def test_what_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(kind: type[Exception], match: str, total_bytes: int = 1 << 32, **options: Any) -> None:
        gpu = Gpu(monkeypatch, total_bytes)
        with pytest.raises(kind, match=match):
            load_generator(bundle, **{"engine": "tensorrt", "check": "size", **options})
        # What is found before a GPU is looked for needs none
        assert gpu.cuda.closed or not gpu.cuda.counts

    refused(OutOfDeviceMemoryError, "no room", total_bytes=1 << 16)
    refused(BundleError, "fused-fp16|built", variant="fused-fp16")
    refused(UsageError, "unknown backend|tensorrt", engine="tensort")
    if bundle.name == "edge":
        refused(BundleError, "makes no sound", sound=True)
    for folder in (bundle / "engines").iterdir():
        name = sorted(folder.glob("vae_decoder*"))[-1]
        content = name.read_bytes()
        name.write_bytes(b"x")
        gpu = Gpu(monkeypatch)
        with load_generator(bundle, engine="tensorrt", check="size") as generator:
            with pytest.raises(BundleError, match="vae_decoder"):
                generator.require_decoder()
            name.write_bytes(content)
            generator.require_decoder()
        gpu.check_closed()
