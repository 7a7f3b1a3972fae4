"""Keeps what the reasoner thinks apart from what it answers, while the text still comes."""

from __future__ import annotations

from dataclasses import dataclass

THINK_START, THINK_END = "<think>", "</think>"
THINKING, ANSWER = "thinking", "answer"


@dataclass(frozen=True)
class Part:
    """A piece of a reply."""

    # THINKING or ANSWER
    kind: str
    text: str


def opens_thinking(prompt: str) -> bool:
    """Whether a rendered prompt ends within a think block, so that the reply begins with thoughts."""
    return prompt.rfind(THINK_START) > prompt.rfind(THINK_END) and prompt.rstrip().endswith(THINK_START)


class ThinkingSplitter:
    """Cuts a stream of text at `<think>` and `</think>`, which may come in pieces; the marks themselves are dropped."""

    def __init__(self, *, thinking: bool = False) -> None:
        """`thinking`: the prompt left a think block open."""
        self._thinking = thinking
        self._held = ""

    def push(self, text: str) -> list[Part]:
        """Parts that are certain by now; the beginning of a possible mark is held back."""
        self._held += text
        parts = []
        while True:
            mark = THINK_END if self._thinking else THINK_START
            before, found, after = self._held.partition(mark)
            if not found:
                break
            parts.append(Part(self._kind, before))
            self._thinking, self._held = not self._thinking, after
        certain = len(self._held) - _overlap(self._held, mark)
        parts.append(Part(self._kind, self._held[:certain]))
        self._held = self._held[certain:]
        return [part for part in parts if part.text]

    def finish(self) -> list[Part]:
        """What was held back."""
        held, self._held = self._held, ""
        return [Part(self._kind, held)] if held else []

    @property
    def _kind(self) -> str:
        return THINKING if self._thinking else ANSWER


def _overlap(text: str, mark: str) -> int:
    """Characters at the end of `text` with which `mark` could begin."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
