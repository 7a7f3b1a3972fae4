"""The synthetic tokenizer in both libraries that read it, with the published ids and token counts."""

from __future__ import annotations

import json

import pytest

from motedge.checkpoint.synthetic_tokenizer import write_tokenizer
from motedge.checkpoint.tokenizer_files import special_tokens, tokenizer_files
from motedge.errors import CheckpointError

EDGE_IDS = {
    "<|im_start|>": 10,
    "<|im_end|>": 11,
    "<think>": 12,
    "</think>": 13,
    "<|video_pad|>": 18,
    "<|image_pad|>": 19,
    "<|vision_start|>": 20,
    "<|vision_end|>": 21,
}
QWEN_IDS = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|image_pad|>": 151655,
    "<|video_pad|>": 151656,
}
# The DROID prompt's form: an instruction inside the caption that the policy was trained with
PROMPT = json.dumps(
    {
        "cinematography": {
            "framing": "This video contains concatenated views from multiple camera perspectives. The top row is from "
            "the wrist-mounted camera. The bottom row contains two horizontally concatenated third-person perspective "
            "views of the scene from opposite sides, with the robot visible."
        },
        "actions": [{"time": "0:00-0:02", "description": "Put the marker in the cup."}],
        "duration": "2s",
        "fps": 15.0,
        "resolution": {"H": 544, "W": 736},
        "aspect_ratio": "4,3",
    }
)


def render(folder, text, **options):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **options)


@pytest.mark.parametrize(("family", "ids"), [("edge", EDGE_IDS), ("nano", QWEN_IDS), ("super", QWEN_IDS)])
def test_both_libraries_give_the_published_special_ids(tiny, family, ids):
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    folder = tiny(family) / "text_tokenizer"
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    text = "a" + "b".join(ids) + "c"
    for token, index in ids.items():
        assert plain.token_to_id(token) == index == auto.convert_tokens_to_ids(token)
    found = [i for i in plain.encode(text, add_special_tokens=False).ids if i in ids.values()]
    assert found == list(ids.values())
    assert auto.encode(text, add_special_tokens=False) == plain.encode(text, add_special_tokens=False).ids
    assert auto.eos_token_id == ids["<|im_end|>"]


@pytest.mark.parametrize("vocab_size", [1024, 4096, 131072])
def test_the_empty_edge_prompt_has_the_published_19_tokens(tmp_path, vocab_size):
    write_tokenizer(tmp_path, "edge", vocab_size)
    ids = [*render(tmp_path, ""), EDGE_IDS["<|im_end|>"], EDGE_IDS["<|vision_start|>"]]
    assert len(ids) == 19
    assert render(tmp_path, "", tokenize=False).endswith("<|im_start|>assistant\n<think>\n")


def test_edge_thinking_can_be_switched_off(tiny):
    text = render(tiny("edge") / "text_tokenizer", "Hello.", tokenize=False, enable_thinking=False)
    assert text.endswith("<think></think>") and "/no_think" in text


def test_nano_renders_the_qwen_template(tiny):
    text = render(tiny("nano") / "text_tokenizer", "Hello.", tokenize=False)
    assert text == "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("family", ["edge", "nano"])
def test_the_droid_prompt_has_about_the_published_length(tiny, family):
    """158 tokens with the real Edge vocabulary."""
    assert 140 <= len(render(tiny(family) / "text_tokenizer", PROMPT)) + 2 <= 180


@pytest.mark.parametrize("family", ["edge", "nano"])
@pytest.mark.parametrize("text", ["Pick up the red cup.", "héllo wörld 測試 🤖\n\t", '{"a": 1.0}', ""])
def test_any_text_survives_encoding_and_decoding(tiny, family, text):
    tokenizers = pytest.importorskip("tokenizers")
    plain = tokenizers.Tokenizer.from_file(str(tiny(family) / "text_tokenizer" / "tokenizer.json"))
    ids = plain.encode(text, add_special_tokens=False).ids
    assert plain.decode(ids) == text
    assert all(index >= 32 for index in ids) if family == "edge" else all(index < 151643 for index in ids)


def test_the_tokenizer_is_the_same_each_time(tmp_path):
    for name in ("a", "b"):
        write_tokenizer(tmp_path / name, "edge", 1024)
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()


def test_special_tokens_are_read_from_the_files(tiny):
    assert special_tokens(tiny("edge")) == {"eos": 11, "vision_start": 20, "pad": 0}
    assert special_tokens(tiny("nano")) == {"eos": 151645, "vision_start": 151652, "pad": 151643}


def test_a_missing_tokenizer_is_an_error(broken):
    (broken / "text_tokenizer" / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match=r"no chat_template\.jinja"):
        tokenizer_files(broken)
    for file in (broken / "text_tokenizer").iterdir():
        file.unlink()
    (broken / "text_tokenizer").rmdir()
    with pytest.raises(CheckpointError, match="no such folder"):
        special_tokens(broken)


def test_a_damaged_or_foreign_tokenizer_is_an_error(broken):
    path = broken / "text_tokenizer" / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("<|vision_start|>", "<|other|>"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"no <\|vision_start\|>"):
        special_tokens(broken)
    path.write_text(text[:100], encoding="utf-8")
    with pytest.raises(CheckpointError, match="can't be read"):
        special_tokens(broken)
