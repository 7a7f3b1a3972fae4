"""Text streamed token by token equals the tokenizer's own decoding, and no piece breaks a character."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import BundleError
from motedge.runtime.text.codec import TextCodec
from motedge.runtime.text.stream import TextStream

TEXTS = ["grüße, 把杯子放进碗里 \U0001f916\U0001f468‍\U0001f469‍\U0001f467", "", "plain\n\ttext  ", "<think>x</think>"]


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> TextCodec:
    writer = pytest.importorskip("motedge.checkpoint.synthetic_tokenizer")
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    writer.write_tokenizer(folder, "edge", 700)
    return TextCodec.read(folder)


def _pieces(codec: TextCodec, ids: list[int], **options) -> list[str]:
    stream = TextStream(codec.tokenizer, **options)
    return [*(stream.push(index) for index in ids), stream.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_come_back(codec: TextCodec, text: str) -> None:
    pieces = _pieces(codec, codec.encode(text).tolist(), shown=("<think>", "</think>"))
    assert "".join(pieces) == text
    assert not any("�" in piece for piece in pieces)


@given(ids=st.lists(st.integers(0, 581), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_tokens_as_the_tokenizer_decodes_them(codec: TextCodec, ids: list[int]) -> None:
    assert "".join(_pieces(codec, ids)) == codec.tokenizer.decode(ids, skip_special_tokens=True)


def test_special_tokens_are_left_out_but_those_shown(codec: TextCodec) -> None:
    ids = [codec.token_id(token) for token in ("<think>", "<|im_end|>")]
    assert "".join(_pieces(codec, ids)) == ""
    assert "".join(_pieces(codec, ids, shown=("<think>",))) == "<think>"


def test_ids_of_a_padded_vocabulary_say_nothing(codec: TextCodec) -> None:
    assert "".join(_pieces(codec, [100_000])) == ""


def test_other_tokenizers_are_refused(codec: TextCodec) -> None:
    with pytest.raises(BundleError, match="byte-level"):
        TextStream(tokenizers.Tokenizer(tokenizers.models.BPE()))


def test_missing_special_token(codec: TextCodec) -> None:
    with pytest.raises(BundleError, match="lacks a token"):
        codec.token_id("<|absent|>")
