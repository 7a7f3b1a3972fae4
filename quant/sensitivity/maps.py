"""Maps of a tower: a column a layer, a row a projection. Costs as shades, schemes as colours; and bars of the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from motedge.quant.page.svg import Axis, Frame, line, percent, picture, rectangle, text

# Shades of the ramp, css classes h0 (least) to h8
SHADES = 9
_LABEL_WIDTH, _CELL_HEIGHT, _WIDEST = 176.0, 20.0, 900.0
_BARS = Frame(560, 300)


def cost_map(sites: Sequence[Mapping[str, Any]], scheme: str, limits: tuple[float, float]) -> str:
    """Error of each projection alone under one scheme; `limits`: relative L2 of the first and the last shade."""

    def cell(site: Mapping[str, Any]) -> tuple[str, str]:
        cost = site["costs"].get(scheme)
        if cost is None:
            return "absent", f"{site['site']}: not offered"
        if "impossible" in cost:
            return "absent", f"{site['site']}: {cost['impossible']}"
        error = math.sqrt(cost["cost"])
        return f"h{shade(error, limits)}", f"{site['site']}: {percent(error)}"

    return _map(sites, cell, f"error of each projection under {scheme}")


def assignment_map(sites: Sequence[Mapping[str, Any]], chosen: Mapping[str, str], order: Sequence[str]) -> str:
    """The scheme that each projection was given; `order`: schemes by number of their colour, "none" apart."""

    def cell(site: Mapping[str, Any]) -> tuple[str, str]:
        scheme = chosen[site["site"]]
        return scheme_class(scheme, order), f"{site['site']}: {scheme}"

    return _map(sites, cell, "scheme of each projection")


def scheme_class(scheme: str, order: Sequence[str]) -> str:
    """The css class of a scheme's colour."""
    return "s-none" if scheme not in order else f"s{order.index(scheme) % 8}"


def shade(error: float, limits: tuple[float, float]) -> int:
    """The number of an error's shade on a logarithmic ramp."""
    low, high = limits
    if error <= low or high <= low:
        return 0
    return min(SHADES - 1, int(SHADES * math.log(error / low) / math.log(high / low)))


def cost_limits(sites: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Least and greatest error of any projection under any scheme, at most four decades apart."""
    errors = [math.sqrt(c["cost"]) for site in sites for c in site["costs"].values() if c.get("cost", 0) > 0]
    return (max(min(errors), max(errors) / 1e4), max(errors)) if errors else (1e-4, 1.0)


def step_bars(steps: Mapping[str, Sequence[Mapping[str, Any]]], order: Sequence[str]) -> str:
    """Error of the action chunk with one denoising step quantized: a group a step, a bar a recipe."""
    values = [entry["chunk"] for entries in steps.values() for entry in entries if entry.get("chunk")]
    if not values:
        return "<p>No step was measured.</p>"
    y = Axis(0.0, 1.08 * max(values), _BARS.inner_bottom, _BARS.top)
    parts = []
    for value in y.ticks():
        parts += [line(_BARS.left, y.at(value), _BARS.inner_right, y.at(value), "grid")]
        parts += [text(_BARS.left - 8, y.at(value) + 4, percent(value), "end")]
    count = max(len(entries) for entries in steps.values())
    group = (_BARS.inner_right - _BARS.left) / count
    wide = min(34.0, 0.72 * group / len(steps))
    for number, (recipe, entries) in enumerate(steps.items()):
        for place, entry in enumerate(entries):
            x = _BARS.left + (place + 0.5) * group + (number - len(steps) / 2) * wide
            if entry.get("chunk"):
                top = y.at(entry["chunk"])
                tip = f"{recipe} at step {entry['step']}: action chunk {percent(entry['chunk'])}"
                css = scheme_class(recipe, order)
                parts.append(rectangle(x + 1, top, wide - 2, _BARS.inner_bottom - top, css, tip))
    for place, entry in enumerate(next(iter(steps.values()))):
        middle = _BARS.left + (place + 0.5) * group
        parts.append(text(middle, _BARS.inner_bottom + 18, f"step {entry['step']}, t = {entry['t']}"))
    parts.append(line(_BARS.left, _BARS.inner_bottom, _BARS.inner_right, _BARS.inner_bottom, "axis"))
    middle = (_BARS.top + _BARS.inner_bottom) / 2
    label = text(0, 0, "relative L2 of the action chunk", css="label")
    parts.append(f'<g transform="translate(13 {middle:.1f}) rotate(-90)">{label}</g>')
    return picture(_BARS.width, _BARS.height, "error by quantized denoising step", parts)


def _map(sites: Sequence[Mapping[str, Any]], cell: Callable[[Mapping[str, Any]], tuple[str, str]], label: str) -> str:
    layers = 1 + max(site["layer"] for site in sites)
    rows = list(dict.fromkeys(site["projection"] for site in sites))
    wide = max(9.0, min(30.0, (_WIDEST - _LABEL_WIDTH) / layers))
    parts = [text(_LABEL_WIDTH - 10, (number + 0.5) * _CELL_HEIGHT + 4, row, "end") for number, row in enumerate(rows)]
    for site in sites:
        css, tip = cell(site)
        x, y = _LABEL_WIDTH + site["layer"] * wide, rows.index(site["projection"]) * _CELL_HEIGHT
        parts.append(rectangle(x + 1, y + 1, wide - 2, _CELL_HEIGHT - 2, css, tip))
    every = next(step for step in (1, 2, 4, 8, 16) if step * wide >= 22 or step == 16)
    bottom = len(rows) * _CELL_HEIGHT
    for layer in range(0, layers, every):
        parts.append(text(_LABEL_WIDTH + (layer + 0.5) * wide, bottom + 15, str(layer)))
    parts.append(text(_LABEL_WIDTH - 10, bottom + 15, "layer", "end"))
    return picture(_LABEL_WIDTH + layers * wide + 2, bottom + 22, label, parts)
