"""Sound on onnxruntime against diffusers: generated with the video, decoded; what is refused; engines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Cosmos3AVAEAudioTokenizer, UniPCMultistepScheduler
from pipeline_oracle import Pipeline
from tensorrt_rtx_build import build_engine
from tiny import MINI_MEDIA

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.cli.main import main
from motedge.errors import BundleError, ContractError, ExportError, UsageError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.plan import make_plan
from motedge.export.variants import parse_variants
from motedge.runtime.backends import open_engine
from motedge.runtime.denoise import DenoiseLoop, GenInputs, SamplerSettings
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.generate import GenerateRequest, load_generator
from motedge.runtime.noise import standard_normal
from motedge.runtime.sound import SoundDecoder, open_sound_decoder, sound_latents
from motedge.runtime.tables import Tables

pytestmark = pytest.mark.slow
TOLERANCE = 2e-6
SEED = 11
EXTRAS = ("sound", "vae-decoder-stream")
PROMPT, NEGATIVE = "A dog barks.", "silence"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = tmp_path_factory.mktemp("checkpoint") / "super"
    return Checkpoint.open(make_checkpoint(root, "super", "base", "tiny", seed=7))


@pytest.fixture(scope="module")
def bundle(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("bundle") / "super"
    options = ExportOptions(MINI_MEDIA, parse_variants("primitive-fp32,fused-fp16"), "none", EXTRAS)
    export_bundle(checkpoint, root, options)
    return Bundle.open(root)


@pytest.fixture(scope="module")
def decoder(bundle: Bundle) -> SoundDecoder:
    return open_sound_decoder(bundle, variant="primitive-fp32")


def _latent(count: int) -> np.ndarray:
    return np.random.RandomState(count).standard_normal((64, count)).astype(np.float32)


def _tokenizer(checkpoint: Checkpoint) -> torch.nn.Module:
    return Cosmos3AVAEAudioTokenizer.from_pretrained(checkpoint.root / "sound_tokenizer", torch_dtype=torch.float32)


@dataclass(frozen=True)
class Reference:
    """What the pipeline made, and from which tokens."""

    prompts: list[list[int]]
    latents: np.ndarray
    waveform: np.ndarray


@pytest.fixture(scope="module")
def pipeline(checkpoint: Checkpoint) -> Any:
    pipe = Pipeline(checkpoint.root).raw
    pipe.register_modules(sound_tokenizer=_tokenizer(checkpoint))
    return pipe


def _theirs(pipe: Any, guidance: float, vision: np.ndarray, sound: np.ndarray) -> Reference:
    """Three steps of the pipeline from given noise."""
    pipe.scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=10.0, solver_order=2
    )
    rows, columns = MINI_MEDIA.canvas
    frames = {"num_frames": 4 * vision.shape[1] - 3, "height": rows, "width": columns}
    noise = {"latents": torch.from_numpy(vision[None]), "sound_latents": torch.from_numpy(sound)}
    prompts = pipe.tokenize_prompt(PROMPT, NEGATIVE, fps=24.0, use_system_prompt=False, **frames)
    made = pipe(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        use_system_prompt=False,
        num_inference_steps=3,
        guidance_scale=guidance,
        enable_sound=True,
        enable_safety_check=False,
        output_type="latent",
        **frames,
        **noise,
    )
    return Reference([list(ids) for ids in prompts], made.video[0].numpy(), made.sound.numpy())


@pytest.fixture(scope="module")
def loop(bundle: Bundle) -> Iterator[DenoiseLoop]:
    und, gen = (open_engine(bundle, name, variant="primitive-fp32") for name in ("und_prefill", "gen_step_sound"))
    made = DenoiseLoop(und, gen, Tables.open(bundle), bundle.manifest.model["config"])
    yield made
    made.close()
    und.close()
    gen.close()


def _inputs(prompts: list[list[int]], vision: np.ndarray, sound: int, rows: int = 0, seed: int = SEED) -> GenInputs:
    cond, uncond = (np.array(ids, np.int64) for ids in prompts)
    return GenInputs(
        vision_clean=np.zeros_like(vision),
        vision_noisy=np.ones(vision.shape[1], np.float32),
        action_clean=np.zeros((rows, 64), np.float32),
        action_noisy=np.ones(rows, np.float32),
        cond_tokens=cond,
        uncond_tokens=uncond,
        fps=24.0,
        domain_id=0,
        raw_dim=64,
        seed=seed,
        sound_latents=sound,
    )


@pytest.mark.capability(mode="sound", family="super", backend="onnxruntime", proof="parity")
@pytest.mark.parametrize(("frames", "guidance"), [(9, 6.0), (17, 1.0)])
def test_sound_comes_with_the_video(
    pipeline: Any, loop: DenoiseLoop, decoder: SoundDecoder, frames: int, guidance: float
) -> None:
    """Every modality starts the same stream of noise: the sound's is the head of the video's."""
    count = sound_latents(frames, 24.0)
    vision = standard_normal(SEED, (48, 1 + (frames - 1) // 4, *MINI_MEDIA.grid))
    sound = standard_normal(SEED, (64, count))
    reference = _theirs(pipeline, guidance, vision, sound)
    assert reference.waveform.shape == (2, 1920 * count)
    result = loop.run(_inputs(reference.prompts, vision, count), SamplerSettings(3, 10.0, guidance))
    np.testing.assert_allclose(result.vision, reference.latents, atol=1e-4, rtol=0)
    assert result.sound is not None and result.sound.shape == (64, count)
    np.testing.assert_allclose(decoder.decode(result.sound), reference.waveform, atol=1e-4, rtol=0)
    assert reference.waveform.std() > 0.02


def test_a_request_with_sound(pipeline: Any, bundle: Bundle) -> None:
    vision, sound = (standard_normal(SEED, shape) for shape in ((48, 3, *MINI_MEDIA.grid), (64, 10)))
    reference = _theirs(pipeline, 6.0, vision, sound)
    sampler = {"steps": 3, "guidance": 6.0, "shift": 10.0}
    request = GenerateRequest(
        "text2video",
        PROMPT,
        NEGATIVE,
        negative_metadata="inverse",
        frames=9,
        seed=SEED,
        sampler=sampler,
        sound=True,
    )
    with load_generator(bundle.root, variant="primitive-fp32", sound=True) as generator:
        made = generator.generate(request)
        np.testing.assert_allclose(made.latents, reference.latents, atol=1e-4, rtol=0)
        assert made.sound is not None
        waveform, rate = generator.waveform(made.sound)
        np.testing.assert_allclose(waveform, reference.waveform, atol=1e-4, rtol=0)
        assert rate == 48000
        with pytest.raises(UsageError, match="at one of two places"):
            generator.generate(dataclasses.replace(request, sound=False))
    with load_generator(bundle.root, variant="primitive-fp32") as silent:
        with pytest.raises(UsageError, match="at one of two places"):
            silent.generate(request)
        with pytest.raises(UsageError, match="makes no sound"):
            silent.waveform(made.sound)
    with pytest.raises(UsageError, match="'text2image' makes no sound"):
        dataclasses.replace(request, mode="text2image", frames=None)


def test_the_command_writes_sound(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install motedge[video]")
    video, sound = tmp_path / "dog.mp4", tmp_path / "dog.wav"
    call = ["generate", "text2video", str(bundle.root), "--prompt", PROMPT, "--frames", "9", "--steps", "1"]
    call += ["--variant", "primitive-fp32", "--sound", "--json"]
    assert main([*call, "--out", str(video), "--out", str(sound)]) == 0
    assert json.loads(capsys.readouterr().out)["sound_latents"] == 10
    with wave.open(str(sound)) as stream:
        assert (stream.getnchannels(), stream.getframerate(), stream.getnframes()) == (2, 48000, 19200)
    with av.open(str(video)) as source:
        heard, seen = source.streams.audio[0], source.streams.video[0]
        assert seen.frames == 9 and heard.codec_context.name == "aac"
        assert float(heard.duration * heard.time_base) == pytest.approx(9 / 24, abs=1024 / 48000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dog.mp4", "dog.wav"]
    assert main([*call[:-2], "--out", str(sound)]) == 2
    assert "add --sound" in capsys.readouterr().err


def test_the_video_hears_the_sound(loop: DenoiseLoop) -> None:
    """Attention joins the modalities; actions may be among them, and without sound the graph is another one."""
    vision = np.zeros((48, 2, *MINI_MEDIA.grid), np.float32)
    prompts, settings = [[3, 5, 7], [3, 7]], SamplerSettings(2, 5.0, 1.0)
    short, long = (loop.run(_inputs(prompts, vision, count, rows=3), settings) for count in (6, 7))
    assert short.sound is not None and short.action.shape == (3, 64)
    assert np.abs(short.vision - long.vision).max() > 1e-4 and np.abs(short.action - long.action).max() > 1e-4
    with pytest.raises(ContractError, match="another range of J"):
        loop.run(_inputs(prompts, vision, 0), settings)
    with pytest.raises(ContractError, match="another range of J"):
        loop.run(_inputs(prompts, vision, 19), settings)
    with pytest.raises(UsageError, match="sound_latents is wrong"):
        _inputs(prompts, vision, -1)


def test_the_plain_graph_makes_no_sound(bundle: Bundle) -> None:
    und, gen = (open_engine(bundle, name, variant="primitive-fp32") for name in ("und_prefill", "gen_step"))
    with contextlib.closing(DenoiseLoop(und, gen, Tables.open(bundle), bundle.manifest.model["config"])) as plain:
        inputs = _inputs([[3, 5], [3]], np.zeros((48, 2, *MINI_MEDIA.grid), np.float32), 5)
        with pytest.raises(ContractError, match="graph 'gen_step' makes no sound"):
            plain.run(inputs, SamplerSettings(2, 5.0, 1.0))
    und.close()
    gen.close()


def test_both_graphs_read_the_same_weights(checkpoint: Checkpoint) -> None:
    plan = make_plan(checkpoint, MINI_MEDIA, parse_variants("all"), ["sound"])
    by_name = {graph.spec.name: graph for graph in plan.graphs}
    for variant, slots in by_name["gen_step_sound"].slots.items():
        own = [slot.spec.name for slot in slots if slot not in by_name["gen_step"].slots[variant]]
        assert sorted(own) == sorted(key for key in checkpoint.transformer if key.startswith("audio_"))
        assert len(slots) == len(own) + len(by_name["gen_step"].slots[variant])


@pytest.mark.capability(mode="sound", family="super", backend="onnxruntime", proof="parity")
@pytest.mark.parametrize("count", [1, 2, 10, 18])
def test_the_waveform_is_that_of_diffusers(checkpoint: Checkpoint, decoder: SoundDecoder, count: int) -> None:
    """9 frames at 24 Hz are 10 latents, the shape set's longest video of 17 frames is 18."""
    theirs = _tokenizer(checkpoint).double()
    with torch.no_grad():
        expected = theirs.decode(torch.from_numpy(_latent(count)).double()).numpy()
    got = decoder.decode(_latent(count))
    assert got.shape == (2, 1920 * count) and decoder.sample_rate_hz == 48000
    assert expected.std() > 0.02 and np.abs(expected).max() <= 1
    np.testing.assert_allclose(got, expected, atol=TOLERANCE, rtol=0)


def test_sixteen_bits(bundle: Bundle, decoder: SoundDecoder) -> None:
    """The error is of the size of fp16's rounding, 2^-11."""
    latent = _latent(9)
    exact = decoder.decode(latent)
    half = open_sound_decoder(bundle, variant="fused-fp16").decode(latent)
    assert np.linalg.norm(half - exact) < 3e-3 * np.linalg.norm(exact)


def test_bad_input(decoder: SoundDecoder) -> None:
    for latent in (_latent(3)[:5], _latent(3)[0], _latent(3)[:, :0]):
        with pytest.raises(ContractError, match="no latents of a sound"):
            decoder.decode(latent)
    with pytest.raises(ContractError, match="another range of J"):
        decoder.decode(_latent(19))
    broken = _latent(3)
    broken[5, 1] = np.nan
    with pytest.raises(NonFiniteError, match="sound_decoder"):
        decoder.decode(broken)


def test_only_models_with_sound(tmp_path: Path, bundle: Bundle) -> None:
    assert bundle.manifest.model["sound_config"]["sampling_rate"] == 48000
    assert not any("sound is left out" in note for note in bundle.manifest.notes)
    edge = Checkpoint.open(make_checkpoint(tmp_path / "edge", "edge", "policy-droid", "tiny"))
    with pytest.raises(ExportError, match="a model without sound"):
        make_plan(edge, MINI_MEDIA, parse_variants("primitive-fp32"), ("sound",))
    policy = {name: entry for name, entry in bundle.manifest.graphs.items() if "sound" not in name}
    with pytest.raises(BundleError, match="--extras sound"):
        open_sound_decoder(Bundle(bundle.root, dataclasses.replace(bundle.manifest, graphs=policy)))


@pytest.mark.capability(mode="sound", family="super", backend="tensorrt-rtx", proof="built")
@pytest.mark.parametrize("graph", ["sound_decoder", "gen_step_sound"])
def test_engines_are_built(bundle: Bundle, graph: str) -> None:
    """By TensorRT-RTX, for a GPU that need not be here: transposed convolutions whose output is padded, for one."""
    variant = bundle.variant(graph, "fused-fp16")
    size, _ = build_engine(bundle.root / variant.file, bundle.contract(graph), "12.0")
    assert size > variant.facts["parameters"] * 2
