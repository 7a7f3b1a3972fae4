"""Pictures of a fidelity report, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from motedge.quant.fidelity.chunk import ChunkError
from motedge.quant.fidelity.loops import VelocityError
from motedge.quant.fidelity.weights import SiteError
from motedge.quant.page.svg import Axis, Frame, line, log_range, percent, picture, rectangle, text, upright

SHADES = 9
_LABEL_WIDTH, _CELL, _WIDEST = 176.0, 20.0, 900.0
_BARS = Frame(620, 290)


def velocity_bars(velocities: Sequence[VelocityError], tensor: str, gate: float) -> str:
    """Relative L2 of one velocity at each step and branch: equal inputs beside each side's own loop."""
    entries = [entry for entry in velocities if entry.tensor == tensor]
    values = [
        value
        for entry in entries
        for value in (entry.teacher_forced.relative_l2, entry.free_running.relative_l2)
        if value
    ]
    if not values:
        return "<p>No difference, or nothing finite, to draw.</p>"
    low, high = log_range([*values, min(values) / 2, gate])
    y = Axis(low, high, _BARS.inner_bottom, _BARS.top, log=True)
    parts = []
    for value in y.ticks():
        parts += [line(_BARS.left, y.at(value), _BARS.inner_right, y.at(value), "grid")]
        parts += [text(_BARS.left - 8, y.at(value) + 4, percent(value), "end")]
    room = (_BARS.inner_right - _BARS.left) / len(entries)
    wide = min(26.0, 0.36 * room)
    for place, entry in enumerate(entries):
        middle = _BARS.left + (place + 0.5) * room
        pairs = ((entry.teacher_forced, "s0", "equal inputs", -wide), (entry.free_running, "s1", "own loop", 0.0))
        for figures, css, words, shift in pairs:
            if figures.relative_l2:
                top = y.at(figures.relative_l2)
                tip = f"step {entry.step}, {entry.branch}, {words}: {percent(figures.relative_l2)}"
                parts.append(rectangle(middle + shift + 1, top, wide - 2, _BARS.inner_bottom - top, css, tip))
        parts.append(text(middle, _BARS.inner_bottom + 16, f"{entry.step} {entry.branch[:4]}."))
        parts.append(text(middle, _BARS.inner_bottom + 31, f"t = {entry.t:.0f}"))
    parts.append(line(_BARS.left, y.at(gate), _BARS.inner_right, y.at(gate), "bound"))
    parts.append(text(_BARS.inner_right, y.at(gate) - 5, f"gate {percent(gate)}", "end", "note"))
    parts.append(line(_BARS.left, _BARS.inner_bottom, _BARS.inner_right, _BARS.inner_bottom, "axis"))
    parts.append(upright(13, (_BARS.top + _BARS.inner_bottom) / 2, f"relative L2, {tensor} velocity"))
    return picture(_BARS.width, _BARS.height, f"{tensor} velocity error by step and branch", parts)


def chunk_map(chunk: ChunkError) -> str:
    """Mean error of each joint in each row; every joint has its own scale, its own greatest value."""
    rows = len(chunk.rows)
    wide = max(9.0, min(26.0, (_WIDEST - _LABEL_WIDTH) / rows))
    parts = []
    for number, joint in enumerate(chunk.joints):
        y = number * _CELL
        parts.append(text(_LABEL_WIDTH - 10, y + 14, joint.field, "end"))
        greatest = max(row[number] for row in chunk.rows) or 1.0
        for place, row in enumerate(chunk.rows):
            css = f"h{min(SHADES - 1, int(SHADES * row[number] / greatest))}"
            tip = f"{joint.field}, action {place}: mean error {row[number]:.4g} {joint.unit}"
            parts.append(rectangle(_LABEL_WIDTH + place * wide + 1, y + 1, wide - 2, _CELL - 2, css, tip))
        words = f"up to {greatest:.3g} {joint.unit}"
        parts.append(text(_LABEL_WIDTH + rows * wide + 10, y + 14, words, "start"))
    bottom = len(chunk.joints) * _CELL
    for place in range(0, rows, 4):
        parts.append(text(_LABEL_WIDTH + (place + 0.5) * wide, bottom + 15, str(place)))
    parts.append(text(_LABEL_WIDTH - 10, bottom + 15, "action", "end"))
    return picture(_LABEL_WIDTH + rows * wide + 200, bottom + 22, "action error by joint and row", parts)


def site_map(
    sites: Sequence[SiteError], value: Callable[[SiteError], float | None], limits: tuple[float, float], label: str
) -> str:
    """SQNR of each projection of a tower, a column a layer: the darker, the noisier."""
    layers = 1 + max(site.layer for site in sites)
    rows = list(dict.fromkeys(site.projection for site in sites))
    wide = max(9.0, min(30.0, (_WIDEST - _LABEL_WIDTH) / layers))
    parts = [text(_LABEL_WIDTH - 10, (n + 0.5) * _CELL + 4, row, "end") for n, row in enumerate(rows)]
    for site in sites:
        found = value(site)
        css = "absent" if found is None else f"h{_shade(found, limits)}"
        words = "not quantized" if found is None else f"{found:.1f} dB"
        x, y = _LABEL_WIDTH + site.layer * wide, rows.index(site.projection) * _CELL
        parts.append(rectangle(x + 1, y + 1, wide - 2, _CELL - 2, css, f"{site.site}, {site.scheme}: {words}"))
    every = next(step for step in (1, 2, 4, 8, 16) if step * wide >= 22 or step == 16)
    bottom = len(rows) * _CELL
    for layer in range(0, layers, every):
        parts.append(text(_LABEL_WIDTH + (layer + 0.5) * wide, bottom + 15, str(layer)))
    parts.append(text(_LABEL_WIDTH - 10, bottom + 15, "layer", "end"))
    return picture(_LABEL_WIDTH + layers * wide + 2, bottom + 22, label, parts)


def sqnr_limits(values: Sequence[float | None]) -> tuple[float, float]:
    """Noisiest and cleanest value in dB, at least 6 apart, for one ramp over several maps."""
    known = [value for value in values if value is not None]
    if not known:
        return 0.0, 6.0
    low, high = math.floor(min(known)), math.ceil(max(known))
    return (low, high) if high - low >= 6 else ((low + high) / 2 - 3, (low + high) / 2 + 3)


def size_bars(sizes: Sequence[tuple[str, int, int]], words: Callable[[int], str]) -> str:
    """Bytes before and after, a pair of bars a graph."""
    largest = max(before for _, before, _ in sizes)
    width, left = 620.0, 110.0
    parts = []
    for number, (name, before, after) in enumerate(sizes):
        y = number * 54.0
        parts.append(text(left - 10, y + 27, name, "end"))
        for shift, value, css in ((4.0, before, "s-none"), (26.0, after, "s0")):
            length = max(2.0, (width - left - 190) * value / largest)
            parts.append(rectangle(left, y + shift, length, 18, css, f"{name}: {words(value)}"))
            share = "" if value == before else f", {100 * value / before:.0f} %"
            parts.append(text(left + length + 8, y + shift + 13, words(value) + share, "start"))
    return picture(width, len(sizes) * 54.0, "size of the weights", parts)


def _shade(value: float, limits: tuple[float, float]) -> int:
    low, high = limits
    return max(0, min(SHADES - 1, int(SHADES * (high - value) / (high - low))))
