"""Prompts with images and videos against transformers' processors; what does not fit."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from motedge.errors import BundleError, UsageError
from motedge.runtime.reasoner.prompt import PromptBuilder
from motedge.runtime.reasoner.video_sampling import sampled_frames
from motedge.runtime.reasoner.vision_settings import EDGE, QWEN3_VL, VisionSettings
from motedge.runtime.reasoner.visual_input import prepare_image, prepare_video
from motedge.runtime.text.codec import TextCodec

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{% if part.type == 'text' %}{{ part.text }}{% else -%}
<|vision_start|>{{ '<|image_pad|>' if part.type == 'image' else '<|video_pad|>' }}<|vision_end|>{% endif -%}
{% endfor %}{% endif %}<|im_end|>
{% endfor -%}
{% if add_generation_prompt %}<|im_start|>assistant
{{ '<think>\\n' if enable_thinking | default(true) else '<think></think>' }}{% endif %}"""
FAMILIES = {"edge": EDGE, "nano": QWEN3_VL}
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
IMAGE, VIDEO = {"type": "image"}, {"type": "video"}
RATE_HZ = 4.0


def _says(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    writer = pytest.importorskip("motedge.checkpoint.synthetic_tokenizer")
    path = tmp_path_factory.mktemp(family)
    writer.write_tokenizer(path, family, 700 if family == "edge" else 151_936)
    (path / "chat_template.jinja").write_text(TEMPLATE)
    return path


@pytest.fixture(scope="module")
def settings(family: str) -> VisionSettings:
    return FAMILIES[family]


@pytest.fixture(scope="module")
def builder(folder: Path, settings: VisionSettings) -> PromptBuilder:
    return PromptBuilder(TextCodec.read(folder), settings)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (96, 500, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return np.random.RandomState(1).randint(0, 256, (11, 64, 90, 3)).astype(np.uint8)


def _video(clip: np.ndarray, settings: VisionSettings) -> Any:
    indexes = sampled_frames(len(clip), RATE_HZ, settings)
    return prepare_video(clip[indexes], indexes, RATE_HZ, settings)


def test_as_the_processor(
    family: str, folder: Path, builder: PromptBuilder, settings: VisionSettings, image: np.ndarray, clip: np.ndarray
) -> None:
    pytest.importorskip("torchvision")
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kinds = [getattr(importlib.import_module(f"transformers.models.{m}"), name) for m, name in PROCESSORS[family]]
    shape = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": settings.temporal_patch}
    values = {"image_mean": list(settings.mean), "image_std": list(settings.std)}
    sizes = [
        {"shortest_edge": low, "longest_edge": high} for low, high in (settings.image_pixels, settings.video_pixels)
    ]
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    processor = kinds[0](
        image_processor=kinds[1](size=sizes[0], **shape, **values),
        tokenizer=tokenizer,
        video_processor=kinds[2](size=sizes[1], **shape, **values),
        chat_template=TEMPLATE,
    )
    messages = _says("Look: ", IMAGE, " then ", VIDEO, "what now?", IMAGE)
    metadata = importlib.import_module("transformers.video_utils").VideoMetadata(total_num_frames=11, fps=RATE_HZ)
    theirs = processor(
        text=[processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)],
        images=[torch.from_numpy(image).permute(2, 0, 1)] * 2,
        videos=[torch.from_numpy(clip).permute(0, 3, 1, 2)],
        video_metadata=[metadata],
        return_metadata=True,
        return_tensors="pt",
    )
    seen = prepare_image(image, settings)
    ours = builder.build(messages, [seen, seen], [_video(clip, settings)])
    assert ours.token_ids.tolist() == theirs["input_ids"][0].tolist()
    assert np.array_equal(np.concatenate([seen.patches] * 2), theirs["pixel_values"].numpy())
    assert np.array_equal(ours.videos[0].patches, theirs["pixel_values_videos"].numpy())


def test_video_text(family: str, builder: PromptBuilder, settings: VisionSettings, clip: np.ndarray) -> None:
    """What stands in a prompt for a video, written out: 96 x 64 pixels, 6 tokens a frame."""
    text = builder.expand("<|vision_start|><|video_pad|><|vision_end|>", [], [_video(clip, settings)])
    frame = "<|vision_start|>" + "<|video_pad|>" * 6 + "<|vision_end|>"
    if family == "edge":
        # Frames 0, 2, 5, 8, 10 at 4 Hz
        assert text == "".join(f"<{t} seconds>{frame}" for t in ("0.0", "0.5", "1.2", "2.0", "2.5"))
    else:
        # Pairs of them, in the template's own markers
        inner = "".join(f"<{t} seconds>{frame}" for t in ("0.2", "1.6", "2.5"))
        assert text == f"<|vision_start|>{inner}<|vision_end|>"


def test_places_positions_and_thinking(
    builder: PromptBuilder, settings: VisionSettings, image: np.ndarray, clip: np.ndarray
) -> None:
    seen, moving = prepare_image(image, settings), _video(clip, settings)
    prompt = builder.build(_says(VIDEO, IMAGE, "and?"), [seen], [moving])
    assert len(prompt.image_places) == seen.grid.tokens_per_frame(2)
    assert len(prompt.video_places) == moving.grid.frames * moving.grid.tokens_per_frame(2)
    assert prompt.visual_tokens == len(prompt.image_places) + len(prompt.video_places)
    assert prompt.video_places.max() < prompt.image_places.min()
    assert prompt.positions.prompt.shape == (3, len(prompt.token_ids))
    assert prompt.thinking
    assert not builder.build(_says("hello"), thinking=False).thinking


def test_text_alone_may_be_a_string(builder: PromptBuilder) -> None:
    as_parts, as_string = builder.build(_says("hello")), builder.build([{"role": "user", "content": "hello"}])
    assert as_parts.token_ids.tolist() == as_string.token_ids.tolist()
    assert as_parts.visual_tokens == 0 and as_parts.positions.delta == 0


def test_what_does_not_fit(builder: PromptBuilder, settings: VisionSettings, image: np.ndarray) -> None:
    seen = prepare_image(image, settings)
    with pytest.raises(UsageError, match="don't show the images"):
        builder.build(_says("hello"), [seen])
    with pytest.raises(UsageError, match="don't show the videos"):
        builder.build(_says(VIDEO))
    with pytest.raises(UsageError, match="don't show the images"):
        builder.build(_says(IMAGE, "typed <|image_pad|>"), [seen])


def test_a_tokenizer_without_placeholders(folder: Path, settings: VisionSettings) -> None:
    codec = TextCodec.read(folder)
    with pytest.raises(BundleError, match="image_pad"):
        PromptBuilder(TextCodec(tokenizers.Tokenizer(tokenizers.models.BPE()), codec.template), settings)
