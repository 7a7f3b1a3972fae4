"""Every mode of the generator on onnxruntime against diffusers' Cosmos3OmniPipeline: same noise, fp32, pixels too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers.pipelines.cosmos import pipeline_cosmos3_omni as module
from diffusers.pipelines.cosmos.pipeline_cosmos3_omni import CosmosActionCondition
from PIL import Image
from pipeline_oracle import Pipeline, Reference
from tiny import MINI_MEDIA

from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.generate import Generated, GenerateRequest, Generator, load_generator

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4
ROWS, COLUMNS = MINI_MEDIA.canvas
FRAMES, STEPS, SEED = 9, 3, 11
PROMPT, NEGATIVE = "A red cube on a table.", "blurry, shaking"
EXTRAS = ("vae-decoder-stream", "vae-encoder-stream")


@pytest.fixture(scope="module", params=["edge", "nano"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / family, family, "base", "tiny", seed=7)


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundle") / checkpoint.name
    options = ExportOptions(MINI_MEDIA, parse_variants("primitive-fp32"), "graphs", EXTRAS)
    export_bundle(Checkpoint.open(checkpoint), root, options)
    return root


@pytest.fixture(scope="module")
def generator(bundle: Path) -> Iterator[Generator]:
    with load_generator(bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def pipeline(checkpoint: Path) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ACTION_RESOLUTION_BINS", {"256": {str(ROWS / COLUMNS): (ROWS, COLUMNS)}})
        yield Pipeline(checkpoint)


def _picture(seed: int, size: tuple[int, int] = (ROWS, COLUMNS)) -> np.ndarray:
    """Smooth, with an edge, so that resizing matters and rounding seldom does."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    shade = np.stack([rows * 2 % 256, columns * 2 % 256, (rows + columns) * (seed + 1) % 256], axis=-1)
    return shade.astype(np.uint8)


def _clip(count: int) -> list[np.ndarray]:
    return [np.roll(_picture(1), 3 * index, axis=1) for index in range(count)]


def _pil(frames: list[np.ndarray]) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in frames]


def _ours(generator: Generator, mode: str, guidance: float, **request: Any) -> Generated:
    sampler = {"steps": STEPS, "guidance": guidance, "shift": 10.0}
    return generator.generate(GenerateRequest(mode, PROMPT, seed=SEED, sampler=sampler, **request))


def _theirs(pipeline: Pipeline, frames: int, guidance: float, **request: Any) -> Reference:
    latent = (48, 1 + (frames - 1) // 4, *MINI_MEDIA.grid)
    sampler = {"num_inference_steps": STEPS, "guidance_scale": guidance, "shift": 10.0}
    return pipeline.run(SEED, latent, prompt=PROMPT, use_system_prompt=False, **sampler, **request)


def _compare(generator: Generator, made: Generated, reference: Reference) -> None:
    np.testing.assert_allclose(made.latents, reference.latents, atol=TOLERANCE, rtol=0)
    frames = np.concatenate(list(generator.frames(made.latents)))
    assert frames.shape == (made.frames, ROWS, COLUMNS, 3)
    # Of 8 bits: where the reference lies between two levels, either is right
    np.testing.assert_allclose(frames / 255, reference.frames, atol=0.5 / 255 + TOLERANCE, rtol=0)
    if reference.actions is not None:
        np.testing.assert_allclose(made.actions, reference.actions, atol=TOLERANCE, rtol=0)


@pytest.mark.capability(mode="{mode}", family="{family}", backend="onnxruntime", proof="parity")
@pytest.mark.parametrize("negative", ["", NEGATIVE])
@pytest.mark.parametrize(("mode", "frames"), [("text2image", 1), ("text2video", FRAMES)])
def test_from_text(generator: Generator, pipeline: Pipeline, mode: str, frames: int, negative: str) -> None:
    made = _ours(generator, mode, 6.0, negative=negative, negative_metadata="inverse", frames=frames)
    size = {"height": ROWS, "width": COLUMNS}
    _compare(generator, made, _theirs(pipeline, frames, 6.0, negative_prompt=negative, num_frames=frames, **size))


def test_with_the_system_prompt(generator: Generator, pipeline: Pipeline) -> None:
    made = _ours(generator, "text2image", 1.0, system_prompt=True)
    size = {"height": ROWS, "width": COLUMNS, "num_frames": 1}
    sampler = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "shift": 10.0}
    reference = pipeline.run(SEED, (48, 1, *MINI_MEDIA.grid), prompt=PROMPT, use_system_prompt=True, **sampler, **size)
    _compare(generator, made, reference)


@pytest.mark.capability(mode="image2video", family="{family}", backend="onnxruntime", proof="parity")
@pytest.mark.parametrize("size", [(ROWS, COLUMNS), (150, 131)], ids=["as-is", "cut"])
def test_from_an_image(generator: Generator, pipeline: Pipeline, size: tuple[int, int]) -> None:
    picture = _picture(0, size)
    made = _ours(generator, "image2video", 6.0, negative_metadata="inverse", frames=FRAMES, image=picture)
    request = {"height": ROWS, "width": COLUMNS, "num_frames": FRAMES, "image": Image.fromarray(picture)}
    _compare(generator, made, _theirs(pipeline, FRAMES, 6.0, **request))


@pytest.mark.capability(mode="video2video", family="{family}", backend="onnxruntime", proof="parity")
@pytest.mark.parametrize(
    ("kept", "keep", "given"),
    [((0, 1), "first", 9), ((0, 1), "last", 9), ((0,), "first", 1), ((0, 2), "first", 7)],
    ids=["first", "last", "one", "gap-and-short"],
)
def test_from_a_video(generator: Generator, pipeline: Pipeline, kept: tuple[int, ...], keep: str, given: int) -> None:
    clip = _clip(given)
    made = _ours(
        generator,
        "video2video",
        6.0,
        negative_metadata="inverse",
        frames=13,
        video=clip,
        condition_frames=kept,
        keep=keep,
    )
    conditioning = {"video": _pil(clip), "condition_frame_indexes_vision": kept, "condition_video_keep": keep}
    reference = _theirs(pipeline, 13, 6.0, height=ROWS, width=COLUMNS, num_frames=13, **conditioning)
    _compare(generator, made, reference)


@pytest.mark.capability(mode="{mode}", family="{family}", backend="onnxruntime", proof="parity")
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("mode", ["forward_dynamics", "inverse_dynamics", "policy"])
def test_with_actions(generator: Generator, pipeline: Pipeline, mode: str, guidance: float) -> None:
    chunk, clip = FRAMES - 1, _clip(FRAMES)
    actions = np.random.RandomState(5).uniform(-1, 1, (chunk, 9)).astype(np.float32)
    given: dict[str, Any] = {"image": clip[0]} if mode != "inverse_dynamics" else {"video": clip}
    condition: dict[str, Any] = {"image": Image.fromarray(clip[0])} if "image" in given else {"video": _pil(clip)}
    if mode == "forward_dynamics":
        given["actions"], condition["raw_actions"] = actions, module.torch.from_numpy(actions)
    made = _ours(generator, mode, guidance, embodiment="av", frames=FRAMES, **given)
    condition = CosmosActionCondition(mode, chunk, "av", resolution_tier=256, **condition)
    reference = _theirs(pipeline, FRAMES, guidance, rows=chunk, fps=10.0, action=condition)
    _compare(generator, made, reference)
    assert (made.actions is None) == (mode == "forward_dynamics")
    assert made.fps == 10
    assert made.raw_actions
