"""A bundle's reasoner on onnxruntime: token for token as transformers, through its own processor where it is there."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import MINI

import motedge
from motedge.bundle import Bundle, Contract
from motedge.checkpoint.reader import Checkpoint
from motedge.cli.main import main
from motedge.errors import BundleError, ContractError, ObservationError, UsageError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.backends import open_engine
from motedge.runtime.engine import Engine
from motedge.runtime.policy.observation_folder import read_image
from motedge.runtime.reasoner.bundle_reasoner import BundleReasoner, question
from motedge.runtime.reasoner.clip import Clip, read_clip
from motedge.runtime.reasoner.events import LENGTH, Finished, Started
from motedge.runtime.reasoner.prompt import ReasonerPrompt
from motedge.runtime.reasoner.sampling import SamplingOptions
from motedge.runtime.reasoner.shared_prefill import UndAsPrefill
from motedge.runtime.reasoner.und_engine import EngineUnd
from motedge.runtime.reasoner.visual_input import VisualInput

oracle = pytest.importorskip("transformers_oracle")

TOLERANCE = 1e-5
COUNT = 32
GREEDY = SamplingOptions(max_new_tokens=COUNT)
ROOT = Path(__file__).resolve().parents[2]
REAL_DATA = Path(os.environ.get("MOTEDGE_REAL_DATA", str(ROOT.parent / "shared" / "data")))
PROCESSORS = {
    "edge": (
        ("cosmos3_edge.processing_cosmos3_edge", "Cosmos3EdgeProcessor"),
        ("cosmos3_edge.image_processing_cosmos3_edge", "Cosmos3EdgeImageProcessor"),
        ("cosmos3_edge.video_processing_cosmos3_edge", "Cosmos3EdgeVideoProcessor"),
    ),
    "nano": (
        ("qwen3_vl.processing_qwen3_vl", "Qwen3VLProcessor"),
        ("qwen2_vl.image_processing_qwen2_vl", "Qwen2VLImageProcessor"),
        ("qwen3_vl.video_processing_qwen3_vl", "Qwen3VLVideoProcessor"),
    ),
}


@dataclass(frozen=True)
class Scene:
    """One family: checkpoint, bundle, the bundle's reasoner, and the oracle."""

    family: str
    checkpoint: Path
    bundle: Path
    reasoner: BundleReasoner
    model: Any


@pytest.fixture(scope="module", params=("edge", "nano"))
def scene(request: pytest.FixtureRequest, checkpoints: dict[str, Path], tmp_path_factory: Any) -> Any:
    checkpoint, bundle = checkpoints[request.param], tmp_path_factory.mktemp("reasoner") / request.param
    options = ExportOptions(MINI, parse_variants("primitive-fp32"), "none", ("reasoner",))
    export_bundle(Checkpoint.open(checkpoint), bundle, options)
    model, _ = oracle.load_reasoner(checkpoint)
    with motedge.load_reasoner(bundle) as reasoner:
        yield Scene(request.param, checkpoint, bundle, reasoner, model)


def _image(seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (90, 130, 3)).astype(np.uint8)


def _clip() -> Clip:
    frames = np.random.RandomState(7).randint(0, 256, (5, 64, 96, 3)).astype(np.uint8)
    return Clip(frames, (0, 2, 4, 6, 8), 4.0)


SHOWN: dict[str, tuple[list[np.ndarray], list[Clip]]] = {
    "text": ([], []),
    "image": ([_image(), _image(1)], []),
    "video": ([], [_clip()]),
    "both": ([_image(2)], [_clip()]),
}


def _theirs(scene: Scene, prompt: ReasonerPrompt) -> dict[str, torch.Tensor]:
    """The prompt as transformers' model takes it."""
    ids = torch.from_numpy(prompt.token_ids)[None]
    config = scene.model.config
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    kinds = torch.where(ids == config.image_token_id, 1, torch.where(ids == config.video_token_id, 2, 0))
    made["mm_token_type_ids"] = kinds
    names = (("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw"))
    for (pixels, grids), seen in zip(names, (prompt.images, prompt.videos), strict=True):
        if seen:
            made[pixels] = torch.from_numpy(np.concatenate([one.patches for one in seen]))
            made[grids] = torch.tensor([_grid(one) for one in seen])
    return made


def _grid(seen: VisualInput) -> list[int]:
    return [seen.grid.frames, seen.grid.rows, seen.grid.columns]


def _generated(scene: Scene, inputs: dict[str, torch.Tensor], count: int = COUNT) -> tuple[list[int], np.ndarray]:
    """Greedy tokens by transformers, and the logits before each."""
    options = {"max_new_tokens": count, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    scene.model.model.rope_deltas = None
    with torch.no_grad():
        made = scene.model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)
    return made.sequences[0, inputs["input_ids"].shape[1] :].tolist(), torch.cat(made.logits).numpy()


def _until_eos(scene: Scene, tokens: list[int]) -> list[int]:
    eos = Bundle.open(scene.bundle).manifest.model["special_tokens"]["eos"]
    return tokens[: tokens.index(eos)] if eos in tokens else tokens


class Recorded:
    """Logits of every step of a reply, copied."""

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logits: list[np.ndarray] = []
        step = EngineUnd.step

        def recording(und: EngineUnd, *args: Any) -> np.ndarray:
            logits = step(und, *args)
            self.logits.append(logits.copy())
            return logits

        monkeypatch.setattr(EngineUnd, "step", recording)


@pytest.mark.capability(mode="reason_{kind}", family="{scene}", backend="onnxruntime", proof="parity")
@pytest.mark.parametrize("kind", SHOWN)
def test_tokens_and_logits_as_transformers(scene: Scene, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, videos = SHOWN[kind]
    messages = question("Put the red cube in the bowl. What next?", len(images), len(videos))
    prompt = scene.reasoner.prompt(messages, images, videos)
    expected, expected_logits = _generated(scene, _theirs(scene, prompt))
    expected = _until_eos(scene, expected)
    recorded = Recorded(scene, monkeypatch)
    started, *_, done = scene.reasoner.generate(prompt, GREEDY)
    assert isinstance(started, Started) and isinstance(done, Finished)
    assert (started.visual_tokens > 0) == (kind != "text")
    assert list(done.token_ids) == expected and len(expected) > 4
    # One step for the prompt and one a token; the token that ended the reply, or the last, is not fed back
    got = np.stack(recorded.logits)
    np.testing.assert_allclose(got, expected_logits[: len(got)], rtol=0, atol=TOLERANCE)


def test_prompt_as_the_processor_makes_it(scene: Scene) -> None:
    pytest.importorskip("torchvision")
    transformers, settings = pytest.importorskip("transformers"), scene.reasoner.settings
    kinds = [getattr(importlib.import_module(f"transformers.models.{m}"), n) for m, n in PROCESSORS[scene.family]]
    shape = {"patch_size": settings.patch, "merge_size": settings.merge, "temporal_patch_size": settings.temporal_patch}
    values = {"image_mean": list(settings.mean), "image_std": list(settings.std)}
    sizes = [
        {"shortest_edge": low, "longest_edge": high} for low, high in (settings.image_pixels, settings.video_pixels)
    ]
    folder = scene.checkpoint / "text_tokenizer"
    processor = kinds[0](
        image_processor=kinds[1](size=sizes[0], **shape, **values),
        tokenizer=transformers.PreTrainedTokenizerFast.from_pretrained(str(folder)),
        video_processor=kinds[2](size=sizes[1], **shape, **values),
        chat_template=(folder / "chat_template.jinja").read_text(encoding="utf-8"),
    )
    image, clip = _image(), _clip()
    messages = question("What is this?", 1, 1, "You see what a robot sees.")
    metadata = importlib.import_module("transformers.video_utils").VideoMetadata(
        total_num_frames=9, fps=clip.rate_hz, frames_indices=list(clip.indexes)
    )
    theirs = processor(
        text=[processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)],
        images=[torch.from_numpy(image).permute(2, 0, 1)],
        videos=[torch.from_numpy(clip.frames).permute(0, 3, 1, 2)],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_metadata=True,
        return_tensors="pt",
    )
    prompt = scene.reasoner.prompt(messages, [image], [clip])
    assert prompt.token_ids.tolist() == theirs["input_ids"][0].tolist()
    # Edge's processor leaves out the kinds of the tokens, which its model asks for
    made = {name: value for name, value in theirs.items() if isinstance(value, torch.Tensor)}
    inputs = {"mm_token_type_ids": _theirs(scene, prompt)["mm_token_type_ids"], **made}
    expected = _until_eos(scene, _generated(scene, inputs)[0])
    done = list(scene.reasoner.generate(prompt, GREEDY))[-1]
    assert isinstance(done, Finished) and list(done.token_ids) == expected


def test_a_long_reply_outgrows_the_first_buffer(scene: Scene) -> None:
    prompt = scene.reasoner.prompt(question("go " * 110))
    count = 300 - len(prompt.token_ids)
    expected = _until_eos(scene, _generated(scene, _theirs(scene, prompt), count)[0])
    done = list(scene.reasoner.generate(prompt, SamplingOptions(max_new_tokens=count)))[-1]
    assert isinstance(done, Finished) and list(done.token_ids) == expected


def test_replies_do_not_depend_on_those_before(scene: Scene) -> None:
    first, _, again = (
        list(scene.reasoner.ask(text, options=GREEDY))[-1] for text in ("open the drawer", "x " * 40, "open the drawer")
    )
    assert first.token_ids == again.token_ids


def test_the_engine_of_k_and_v(scene: Scene) -> None:
    engine = open_engine(Bundle.open(scene.bundle), "und")
    und = EngineUnd(engine, capacity=8)
    random = np.random.RandomState(0)
    sizes = engine.contract.sizes

    def step(count: int, start: int) -> np.ndarray:
        rows = [random.standard_normal((count, sizes[letter])).astype(np.float32) for letter in "HRR"]
        return und.step(*rows, start, None).copy()

    assert step(6, 0).shape == (sizes["V"],)
    with pytest.raises(ContractError, match="don't reach"):
        step(1, 7)
    with pytest.raises(ContractError, match="don't reach"):
        step(3, 6)
    step(2, 6)
    with pytest.raises(ContractError, match="another range"):
        EngineUnd(engine, capacity=10**6)
    engine.close()


def test_what_can_not_be_opened_or_asked(scene: Scene, bundles: dict[str, Path]) -> None:
    with pytest.raises(BundleError, match="has no reasoner") as caught:
        motedge.load_reasoner(bundles[scene.family])
    assert "--extras reasoner" in str(caught.value)
    with pytest.raises(UsageError, match="unknown backend"):
        motedge.load_reasoner(scene.bundle, engine="tensort")
    with pytest.raises(UsageError, match="unknown check"):
        motedge.load_reasoner(scene.bundle, check="ful")
    with motedge.load_reasoner(scene.bundle, check="size", capacity=40) as small:
        with pytest.raises(UsageError, match="too long"):
            list(small.ask("go " * 60))
        done = list(small.ask("go", options=SamplingOptions(max_new_tokens=60)))[-1]
        assert done.reason != LENGTH or len(done.token_ids) < 60
    with pytest.raises(UsageError, match="placeholders"):
        scene.reasoner.ask("what is <|image_pad|>?")
    tall = np.zeros((32, 8000, 3), np.uint8)
    with pytest.raises(ObservationError):
        scene.reasoner.ask("?", [tall])


@pytest.mark.skipif(
    not (REAL_DATA / "robot_153.jpg").is_file(), reason="no robot_153.jpg; name its folder with MOTEDGE_REAL_DATA"
)
def test_a_real_image(scene: Scene) -> None:
    pytest.importorskip("PIL")
    image = read_image(REAL_DATA / "robot_153.jpg")
    prompt = scene.reasoner.prompt(question("What should the robot do next?", 1), [image])
    expected = _until_eos(scene, _generated(scene, _theirs(scene, prompt))[0])
    events = list(scene.reasoner.generate(prompt, GREEDY))
    assert list(events[-1].token_ids) == expected
    assert "".join(part.text for part in events[1:-1]) == events[-1].thinking + events[-1].answer


@pytest.mark.skipif(
    not (REAL_DATA / "av_0.mp4").is_file(), reason="no av_0.mp4; name its folder with MOTEDGE_REAL_DATA"
)
def test_a_real_video(scene: Scene) -> None:
    pytest.importorskip("av")
    clip = read_clip(REAL_DATA / "av_0.mp4", scene.reasoner.settings, sample_hz=1.0)
    assert clip.frames.dtype == np.uint8 and len(clip.frames) == len(clip.indexes) >= 4
    prompt = scene.reasoner.prompt(question("Where does the car go?", 0, 1), [], [clip])
    expected = _until_eos(scene, _generated(scene, _theirs(scene, prompt), 8)[0])
    done = list(scene.reasoner.generate(prompt, SamplingOptions(max_new_tokens=8)))[-1]
    assert list(done.token_ids) == expected


def test_the_command(scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(_image()).save(tmp_path / "seen.png")
    command = ["reason", str(scene.bundle), "--prompt", "What is this?", "--image", str(tmp_path / "seen.png")]
    assert main([*command, "--max-tokens", "12", "--check", "size", "--json"]) == 0
    reply = json.loads(capsys.readouterr().out)
    done = list(scene.reasoner.ask("What is this?", [_image()], options=SamplingOptions(max_new_tokens=12)))[-1]
    assert tuple(reply["token_ids"]) == done.token_ids
    assert reply["visual_tokens"] > 0 and reply["timings_ms"]["prefill_ms"] > 0


class _Narrow:
    """An engine of und that takes few new tokens at once."""

    def __init__(self, engine: Engine, most: int) -> None:
        self._engine, self.dtype, self.context = engine, engine.dtype, engine.context
        profile = {**engine.contract.profile, "S": (1, most, most)}
        self.contract = dataclasses.replace(engine.contract, profile=profile)

    def close(self) -> None:
        raise AssertionError("und is its owner's")


def test_prompts_longer_than_und_takes_are_read_in_pieces(scene: Scene) -> None:
    random, whole = np.random.RandomState(6), UndAsPrefill(*_shared(scene, 2048)).context({"S": 17})
    pieces = [UndAsPrefill(*_shared(scene, most)).context({"S": 17}) for most in (8, 16)]
    for _ in range(2):
        for spec in Bundle.open(scene.bundle).contract("und_prefill").inputs:
            shape = spec.shape({**scene.reasoner.und_engine.contract.sizes, "S": 17})
            value = random.standard_normal(shape).astype(np.float32)
            for context in (whole, *pieces):
                context.set_input(spec.name, value)
        whole.run()
        for context in pieces:
            context.run()
            np.testing.assert_allclose(context.output("und_kv"), whole.output("und_kv"), rtol=0, atol=TOLERANCE)
    with pytest.raises(ContractError, match="can't take this cos"):
        pieces[0].set_input("cos", np.zeros((18, 1), np.float32))


def _shared(scene: Scene, most: int) -> tuple[Engine, Contract]:
    return _Narrow(scene.reasoner.und_engine, most), Bundle.open(scene.bundle).contract("und_prefill")


def test_the_tower_reads_the_policys_prompts(scene: Scene) -> None:
    bundle, random = Bundle.open(scene.bundle), np.random.RandomState(5)
    apart = open_engine(bundle, "und_prefill")
    shared = UndAsPrefill(scene.reasoner.und_engine, bundle.contract("und_prefill"))
    assert (shared.contract, shared.dtype) == (apart.contract, apart.dtype)
    ours, theirs = shared.context({"S": 21}), apart.context({"S": 21})
    for spec in apart.contract.inputs:
        value = random.standard_normal(spec.shape({**apart.contract.sizes, "S": 21})).astype(np.float32)
        ours.set_input(spec.name, value)
        theirs.set_input(spec.name, value)
    for _ in range(2):
        ours.run()
    theirs.run()
    np.testing.assert_allclose(ours.output("und_kv"), theirs.output("und_kv"), rtol=0, atol=TOLERANCE)
    with pytest.raises(ContractError, match="no input 'past_kv'"):
        ours.set_input("past_kv", np.zeros(1, np.float32))
    with pytest.raises(ContractError, match="no output 'logits'"):
        ours.output("logits")
    with pytest.raises(ContractError, match="another range"):
        shared.context({"S": 10**6})
    other = dataclasses.replace(bundle.contract("und_prefill"), sizes={**apart.contract.sizes, "H": 8})
    with pytest.raises(ContractError, match="different models"):
        UndAsPrefill(scene.reasoner.und_engine, other)
    apart.close()
