"""Thoughts and answers kept apart, however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motedge.runtime.reasoner.thinking import ANSWER, THINKING, ThinkingSplitter, opens_thinking

WHOLE = "a <thin <think>b </thin </think>c<d>"


def _split(pieces: list[str], thinking: bool = False) -> dict[str, str]:
    splitter, texts = ThinkingSplitter(thinking=thinking), {THINKING: "", ANSWER: ""}
    for part in [part for piece in pieces for part in splitter.push(piece)] + splitter.finish():
        assert part.text
        texts[part.kind] += part.text
    return texts


@given(cuts=st.sets(st.integers(0, len(WHOLE))))
def test_any_cut_gives_the_same(cuts: set[int]) -> None:
    bounds = [0, *sorted(cuts), len(WHOLE)]
    pieces = [WHOLE[begin:end] for begin, end in zip(bounds, bounds[1:])]
    assert _split(pieces) == {ANSWER: "a <thin c<d>", THINKING: "b </thin "}


def test_a_prompt_may_open_the_block() -> None:
    assert _split(["so", "</think>yes"], thinking=True) == {THINKING: "so", ANSWER: "yes"}
    assert _split(["never ends </thi"], thinking=True) == {THINKING: "never ends </thi", ANSWER: ""}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("x<think>\n", True), ("x<think></think>", False), ("", False), ("<think> in a text\nassistant\n", False)],
)
def test_prompts_that_open_it(prompt: str, expected: bool) -> None:
    assert opens_thinking(prompt) is expected
