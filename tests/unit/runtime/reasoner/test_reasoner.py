"""The loop: token by token as transformers' generate, limits, stops, cancelling, streaming."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import pytest

from motedge.errors import UsageError
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.reasoner.events import CANCELLED, LENGTH, STOP, Finished, Pause, Started
from motedge.runtime.reasoner.prompt import PromptBuilder, ReasonerPrompt
from motedge.runtime.reasoner.reasoner import Reasoner
from motedge.runtime.reasoner.sampling import SamplingOptions
from motedge.runtime.reasoner.thinking import ANSWER, THINKING, Part
from motedge.runtime.reasoner.vision_settings import VisionSettings
from motedge.runtime.reasoner.visual_input import prepare_image, prepare_video
from motedge.runtime.rope import RotaryTable
from motedge.runtime.text.chat import ChatTemplate
from motedge.runtime.text.codec import TextCodec

TEMPLATE = """\
{% for part in messages[0].content %}{% if part.type == 'text' %}{{ part.text }}{% else -%}
<|vision_start|>{{ '<|image_pad|>' if part.type == 'image' else '<|video_pad|>' }}<|vision_end|>
{%- endif %}{% endfor %}"""
NEVER = 11


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    writer = pytest.importorskip("motedge.checkpoint.synthetic_tokenizer")
    folder = tmp_path_factory.mktemp("tokenizer")
    # Edge's ids, for both: the models of these tests share them
    writer.write_tokenizer(folder, "edge", 700)
    return TextCodec(TextCodec.read(folder).tokenizer, ChatTemplate(TEMPLATE, {}))


def _prompt(codec: TextCodec, settings: VisionSettings, *parts: str) -> ReasonerPrompt:
    """Parts: "image", "video", or text."""
    random = np.random.RandomState(3)
    small = dataclasses.replace(settings, image_pixels=(4096, 9216))
    images = [prepare_image(random.randint(0, 256, (70, 90, 3)).astype(np.uint8), small) for p in parts if p == "image"]
    clips = [random.randint(0, 256, (5, 60, 80, 3)).astype(np.uint8) for p in parts if p == "video"]
    videos = [prepare_video(clip, range(5), 2.0, small) for clip in clips]
    content = [{"type": p} if p in ("image", "video") else {"type": "text", "text": p} for p in parts]
    return PromptBuilder(codec, small).build([{"role": "user", "content": content}], images, videos)


def _reasoner(codec: TextCodec, torch_model: SimpleNamespace, und: Any, stop: tuple[int, ...] = (NEVER,)) -> Reasoner:
    rotary = RotaryTable(torch_model.inv_freq, torch_model.config)
    return Reasoner(codec, torch_model.embed, rotary, und, torch_model.vision, stop_tokens=stop)


def _oracle(torch_model: SimpleNamespace, prompt: ReasonerPrompt, count: int) -> list[int]:
    import torch

    ids = torch.from_numpy(prompt.token_ids)[None]
    more: dict[str, Any] = {}
    for names, seen in (
        (("pixel_values", "image_grid_thw"), prompt.images),
        (("pixel_values_videos", "video_grid_thw"), prompt.videos),
    ):
        if seen:
            more[names[0]] = torch.from_numpy(np.concatenate([one.patches for one in seen]))
            more[names[1]] = torch.tensor([[s.grid.frames, s.grid.rows, s.grid.columns] for s in seen])
    kinds = torch.where(ids == 19, 1, torch.where(ids == 18, 2, 0))
    torch_model.model.model.rope_deltas = None
    made = torch_model.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=kinds,
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=NEVER,
        **more,
    )
    return made[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize(
    "parts",
    [("Put the red cube in the bowl.",), ("image", "What is this?"), ("image", "video", "and", "image", "now?")],
    ids=["text", "image", "video"],
)
def test_tokens_as_transformers_generates(
    codec: TextCodec, torch_model: SimpleNamespace, parts: tuple[str, ...]
) -> None:
    prompt = _prompt(codec, torch_model.settings, *parts)
    und = torch_model.und()
    events = list(_reasoner(codec, torch_model, und).generate(prompt, SamplingOptions(max_new_tokens=32)))
    done = events[-1]
    assert isinstance(done, Finished)
    expected = _oracle(torch_model, prompt, 32)
    assert len(set(expected)) > 5, "a model that repeats itself shows nothing"
    assert list(done.token_ids) == expected
    started = events[0]
    assert isinstance(started, Started)
    assert (started.prompt_tokens, started.visual_tokens) == (len(prompt.token_ids), prompt.visual_tokens)
    # The prompt in pieces of at most 50, then one at a time; the last token is never fed back
    rows = [count for _, count in und.steps]
    assert sum(rows) == len(prompt.token_ids) + 31
    assert max(rows) <= 50 and rows[-31:] == [1] * 31


def test_steps_are_those_of_the_loop(codec: TextCodec, torch_model: SimpleNamespace) -> None:
    """The same events, with a pause behind every forward; the prompt in smaller pieces changes nothing."""
    prompt = _prompt(codec, torch_model.settings, "image", "What is this?")
    options, und = SamplingOptions(max_new_tokens=6), torch_model.und()
    reasoner = _reasoner(codec, torch_model, und)
    expected = list(reasoner.generate(prompt, options))[-1]
    und.steps.clear()
    seen, forwards = [], []
    for event in reasoner.steps(prompt, options, piece=16):
        seen.append(event)
        if isinstance(event, Pause):
            forwards.append(len(und.steps))
    assert isinstance(expected, Finished) and isinstance(seen[-1], Finished)
    assert seen[-1].token_ids == expected.token_ids
    pieces = -(-len(prompt.token_ids) // 16)
    assert [event.tokens for event in seen if isinstance(event, Pause)] == [0] * (1 + pieces) + [1, 2, 3, 4, 5, 6]
    # None behind the images; the first token costs no forward of its own, every other one
    assert forwards == [0, *range(1, pieces + 1), *range(pieces, pieces + 6)]
    assert max(count for _, count in und.steps) == 16
    # Left for good in the middle, it disturbs nobody
    left = reasoner.steps(prompt, options)
    next(left)
    left.close()
    again = list(reasoner.generate(prompt, options))[-1]
    assert isinstance(again, Finished) and again.token_ids == expected.token_ids


def test_the_text_is_streamed_whole(codec: TextCodec, torch_model: SimpleNamespace) -> None:
    prompt = _prompt(codec, torch_model.settings, "go")
    events = list(_reasoner(codec, torch_model, torch_model.und()).generate(prompt, SamplingOptions(max_new_tokens=24)))
    done = events[-1]
    assert isinstance(done, Finished) and done.reason == LENGTH
    for kind, text in ((ANSWER, done.answer), (THINKING, done.thinking)):
        assert "".join(e.text for e in events if isinstance(e, Part) and e.kind == kind) == text
    assert done.tokens_per_s > 0


class Script:
    """A tower that says what it is told to."""

    max_new = 50

    def __init__(self, tokens: list[int], capacity: int = 400) -> None:
        self._tokens, self.capacity = iter(tokens), capacity

    def step(self, embeddings: np.ndarray, cos: Any, sin: Any, start: int, deepstack: Optional[Any]) -> np.ndarray:
        token = next(self._tokens)
        logits = np.zeros(700, np.float32)
        logits[token] = np.nan if token < 0 else 1
        return logits


@pytest.fixture
def say(codec: TextCodec) -> Any:
    """`say(text or ids, ...)` -> events of a reply that is scripted; other arguments of `generate`."""
    settings = VisionSettings()

    def events(said: Any, *, capacity: int = 400, prompt: str = "go", **options: Any) -> list[Any]:
        ids = codec.encode(said).tolist() if isinstance(said, str) else said
        model = SimpleNamespace(
            inv_freq=np.ones(32, np.float32),
            config={"rope_axes_dim": [12, 10, 10]},
            embed=lambda ids: np.zeros((len(ids), 8), np.float32),
            vision=None,
        )
        reasoner = _reasoner(codec, model, Script(ids, capacity))
        return list(reasoner.generate(_prompt(codec, settings, prompt), **options))

    return events


def test_stop_token_ends_the_reply(say: Any, codec: TextCodec) -> None:
    done = say([*codec.encode("yes"), NEVER])[-1]
    assert (done.reason, done.answer, done.thinking) == (STOP, "yes", "")
    assert list(done.token_ids) == codec.encode("yes").tolist()


def test_a_text_that_was_told_ends_the_reply(say: Any, codec: TextCodec) -> None:
    events = say("one, two, three, four", options=SamplingOptions(stop=("four", ", th")))
    done = events[-1]
    assert (done.reason, done.answer) == (STOP, "one, two")
    assert "".join(event.text for event in events if isinstance(event, Part)) == "one, two"
    # No more was said than was needed to find it
    assert 0 < len(done.token_ids) < len(codec.encode("one, two, three, four"))
    # What is thought does not count
    done = say("<think>END</think>so END it is", options=SamplingOptions(stop=("END",)))[-1]
    assert (done.reason, done.thinking, done.answer) == (STOP, "END", "so ")
    done = say("at the EN<|im_end|>", options=SamplingOptions(stop=("END",)))[-1]
    assert (done.reason, done.answer) == (STOP, "at the EN")
    events = say("at the EN", options=SamplingOptions(stop=("END",), max_new_tokens=len(codec.encode("at the EN"))))
    assert (events[-1].reason, events[-1].answer) == (LENGTH, "at the EN")
    assert "".join(event.text for event in events if isinstance(event, Part)) == "at the EN"


def test_thoughts_are_kept_apart(say: Any) -> None:
    done = say("because</think>yes<|im_end|>", prompt="go<think>\n")[-1]
    assert (done.thinking, done.answer) == ("because", "yes")
    done = say("<think>why</think>\n\nno<|im_end|>")[-1]
    assert (done.thinking, done.answer) == ("why", "\n\nno")


def test_characters_are_never_broken(say: Any) -> None:
    pieces = [event.text for event in say("把杯\U0001f916<|im_end|>") if isinstance(event, Part)]
    assert "".join(pieces) == "把杯\U0001f916"
    assert not any("�" in piece for piece in pieces)


def test_limits(say: Any, codec: TextCodec) -> None:
    done = say([40] * 9, options=SamplingOptions(max_new_tokens=9))[-1]
    assert (done.reason, len(done.token_ids)) == (LENGTH, 9)
    room = len(codec.encode("go")) + 3
    done = say([40] * 9, capacity=room)[-1]
    # The fourth token need not be held
    assert (done.reason, len(done.token_ids)) == (LENGTH, 4)


def test_cancelling(say: Any) -> None:
    answers = iter([False, False, True])
    done = say([40, 41, 42], cancelled=lambda: next(answers))[-1]
    assert (done.reason, done.token_ids) == (CANCELLED, (40, 41))


def test_what_can_not_be_answered(say: Any, codec: TextCodec, torch_model: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match="too long"):
        say("x", capacity=1, prompt="much too long")
    with pytest.raises(NonFiniteError, match="'und'"):
        say([-1])
    blind = _reasoner(codec, SimpleNamespace(**{**vars(torch_model), "vision": None}), torch_model.und())
    with pytest.raises(UsageError, match="can't see"):
        list(blind.generate(_prompt(codec, torch_model.settings, "image", "x")))
