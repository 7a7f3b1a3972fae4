"""Ends a text where one of several others begins in it, while it still comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopTexts:
    """Cuts a text before the first of some others that is complete in it; where the pieces are cut does not matter."""

    def __init__(self, texts: Sequence[str]) -> None:
        """`texts`: none is empty."""
        self._texts = tuple(texts)
        self._held = ""
        # Whether one was found; nothing comes after it
        self.found = False

    def push(self, piece: str) -> str:
        """What is certain by now to stand before any of them."""
        if self.found:
            return ""
        text = self._held + piece
        # The first to be complete, so that it is found at the same place whatever comes in one piece
        ends = [(at + len(each), at) for each in self._texts if (at := text.find(each)) >= 0]
        if ends:
            self.found, self._held = True, ""
            return text[: min(ends)[1]]
        certain = len(text) - max((_begun(text, each) for each in self._texts), default=0)
        self._held = text[certain:]
        return text[:certain]

    def finish(self) -> str:
        """What was held back, for it could have been the beginning of one."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, other: str) -> int:
    """Characters at the end of `text` with which `other` could begin."""
    return next((n for n in range(min(len(other) - 1, len(text)), 0, -1) if text.endswith(other[:n])), 0)
