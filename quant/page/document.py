"""The frame of a page and its plain parts: tiles, tables, lists."""

from __future__ import annotations

import html
from collections.abc import Sequence

from motedge.errors import InternalError
from motedge.quant.page.style import STYLE


def document(title: str, sections: Sequence[str]) -> str:
    """A whole page; sections are HTML."""
    escaped = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped}</title><style>{STYLE}</style></head>\n<body><main><h1>{escaped}</h1>\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def tiles(entries: Sequence[tuple[str, str, str]]) -> str:
    """Boxes of (name, value, note)."""
    cells = "".join(
        f'<div class="tile"><div class="name">{html.escape(name)}</div><div class="value">{html.escape(value)}</div>'
        f'<div class="note">{html.escape(note)}</div></div>'
        for name, value, note in entries
    )
    return f'<div class="tiles">{cells}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[bool] | None = None) -> str:
    """A table; marked rows stand out."""
    marks = [False] * len(rows) if marked is None else list(marked)
    if len(marks) != len(rows):
        raise InternalError(f"{len(marks)} marks of {len(rows)} rows")
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr{' class=marked' if mark else ''}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row, mark in zip(rows, marks)
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def bullets(items: Sequence[str]) -> str:
    """A list of sentences."""
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"


def details(summary: str, text: str) -> str:
    """Text that opens on a click."""
    return f"<details><summary>{html.escape(summary)}</summary><pre>{html.escape(text)}</pre></details>"
