"""What holds of every page of a report: its elements are balanced, and nothing of it is fetched or left unfilled."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

# Elements that are never closed
_VOID = {"meta", "br"}


class Balance(HTMLParser):
    """Fails where elements are closed in another order than they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: set[str] = set()
        self.circles = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "svg":
            self.titles.add(dict(attrs)["aria-label"])
        self.circles += tag == "circle"

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: str) -> Balance:
    """The page's titles of pictures and dots, once it holds."""
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    for outside in ("http://", "https://", "<script", "src=", "@import", "url(", "nan", 'inf"'):
        assert outside not in page.lower(), outside
    return balance
