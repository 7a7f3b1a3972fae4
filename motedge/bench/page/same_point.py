"""A map of what the recipes cost by themselves: error at each point against the reference at the same point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from motedge.quant.page.svg import picture, rectangle, text

SHADES = 9
_CELL, _WIDE, _LETTER = 24.0, 78.0, 6.6


def same_point_map(document: Mapping[str, Any]) -> str:
    """A row an operating point, a column a recipe but the reference; empty where there is none."""
    names = [entry["name"] for entry in document["candidates"]][1:]
    points = [entry["name"] for entry in document["points"]]
    found = {(cell["candidate"], cell["point"]): cell for cell in document["cells"]}
    errors = {key: cell["from_same_point"] for key, cell in found.items() if cell["from_same_point"] is not None}
    known = {key: error["relative_l2"] for key, error in errors.items() if error["relative_l2"] is not None}
    positive = [value for (candidate, _), value in known.items() if value > 0 and candidate in names]
    if not names or not known:
        return ""
    low, high = (min(positive), max(positive)) if positive else (1.0, 1.0)
    wide, left = max(_WIDE, _LETTER * max(map(len, names)) + 16), _LETTER * max(map(len, points)) + 24
    parts = [text(left + (column + 0.5) * wide, 14, name, css="note") for column, name in enumerate(names)]
    for row, point in enumerate(points):
        y = 22 + row * _CELL
        parts.append(text(left - 10, y + 16, point, "end", "note"))
        for column, name in enumerate(names):
            value = known.get((name, point))
            shade = 0 if not value else _shade(value, low, high)
            words = "-" if value is None else f"{100 * value:.3g} %"
            css = "absent" if value is None else f"h{shade}"
            x = left + column * wide
            parts.append(rectangle(x + 1, y + 1, wide - 2, _CELL - 2, css, f"{name} at {point}: {words}"))
            # Dark shades are dark in the light theme and light in the dark one, as the ground's opposite
            parts.append(text(x + wide / 2, y + 16, words, css="on" if shade >= 5 else "note"))
    width = left + len(names) * wide + 4
    return picture(width, 26 + len(points) * _CELL, "error of each recipe at the same point", parts)


def _shade(value: float, low: float, high: float) -> int:
    share = math.log(value / low) / math.log(high / low) if high > low else 1.0
    return min(SHADES - 1, 1 + int((SHADES - 1) * share))
