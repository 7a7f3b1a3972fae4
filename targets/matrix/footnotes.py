"""Footnotes of a Markdown page: each text once, numbered in order of appearance."""

from __future__ import annotations


class Footnotes:
    """Collects texts and gives the sign that stands in the page."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def sign(self, text: str) -> str:
        """ "[^3]" for a text; the same one for the same text."""
        return f"[^{self._numbers.setdefault(text, len(self._numbers) + 1)}]"

    def lines(self) -> list[str]:
        """The definitions, for the page's end."""
        return [f"[^{number}]: {text}" for text, number in self._numbers.items()]
