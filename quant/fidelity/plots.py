"""Pictures of a fidelity report, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from motedge.quant.fidelity.chunk import ChunkError
from motedge.quant.fidelity.figures import Figures
from motedge.quant.fidelity.loops import VelocityError
from motedge.quant.fidelity.weights import SiteError
from motedge.quant.fidelity.words import decibels, number, relative
from motedge.quant.page.svg import Axis, Frame, line, picture, rectangle, text, upright

SHADES = 9
_LABEL_WIDTH, _CELL, _WIDEST = 176.0, 20.0, 900.0
_BARS, _ROWS = Frame(620, 290, left=82, right=56), Frame(620, 230, left=82)


def velocity_bars(velocities: Sequence[VelocityError], tensor: str, gate: float) -> str:
    """Relative L2 of one velocity at each step and branch: equal inputs beside each side's own loop."""
    entries = [entry for entry in velocities if entry.tensor == tensor]
    known = [f.relative_l2 for entry in entries for f in (entry.teacher_forced, entry.free_running)]
    highest = max((value for value in known if value is not None), default=0.0)
    # A gate far above every bar would flatten them: it is then named, not drawn
    shown = gate <= 4 * highest
    y = Axis(0.0, 1.08 * max(highest, gate if shown else 0.0) or 1.0, _BARS.inner_bottom, _BARS.top)
    parts = _scale(_BARS, y, lambda value: f"{100 * value:.3g} %")
    room = (_BARS.inner_right - _BARS.left) / max(1, len(entries))
    wide = min(26.0, 0.36 * room)
    for place, entry in enumerate(entries):
        middle = _BARS.left + (place + 0.5) * room
        pairs = ((entry.teacher_forced, "s0", "equal inputs", -wide), (entry.free_running, "s1", "own loop", 0.0))
        for figures, css, words, shift in pairs:
            tip = f"step {entry.step}, {entry.branch}, {words}: {relative(figures.relative_l2)}"
            parts.append(_bar(middle + shift + 1, wide - 2, _BARS, y, figures.relative_l2, css, tip))
        parts.append(text(middle, _BARS.inner_bottom + 16, f"{entry.step} {entry.branch.removesuffix('itional')}."))
        parts.append(text(middle, _BARS.inner_bottom + 31, f"t = {entry.t:.0f}"))
    parts.append(line(_BARS.left, _BARS.inner_bottom, _BARS.inner_right, _BARS.inner_bottom, "axis"))
    if shown:
        parts.append(line(_BARS.left, y.at(gate), _BARS.inner_right, y.at(gate), "bound"))
    beside = y.at(gate) + 4 if shown else _BARS.top + 8
    for shift, words in ((0, "gate"), (15, f"{100 * gate:g} %" + ("" if shown else " ↑"))):
        parts.append(text(_BARS.width - 4, beside + shift - 4, words, "end", "note"))
    parts.append(upright(13, (_BARS.top + _BARS.inner_bottom) / 2, f"relative L2, {tensor} velocity"))
    return picture(_BARS.width, _BARS.height, f"{tensor} velocity error by step and branch", parts)


def row_bars(chunk: ChunkError, unit: str) -> str:
    """Error of every action row over the channels of one unit: bars are means, the marks above them greatest values."""
    columns = [column for column, joint in enumerate(chunk.joints) if joint.unit == unit]
    means = [_mean([row[column] for column in columns]) for row in chunk.rows]
    peaks = [_greatest([row[column] for column in columns]) for row in chunk.rows_max]
    y = Axis(0.0, 1.08 * (_greatest(peaks) or 0.0) or 1.0, _ROWS.inner_bottom, _ROWS.top)
    parts = _scale(_ROWS, y, lambda value: f"{value:.3g}")
    room = (_ROWS.inner_right - _ROWS.left) / len(means)
    for place, (mean, peak) in enumerate(zip(means, peaks, strict=True)):
        x = _ROWS.left + place * room
        tip = f"action {place}: mean {number(mean, '.4g')} {unit}, greatest {number(peak, '.4g')} {unit}"
        parts.append(_bar(x + 1, room - 2, _ROWS, y, mean, "s0", tip))
        if peak is not None:
            parts.append(rectangle(x + 1, y.at(peak) - 1, room - 2, 2.5, "s1", tip))
        if place % 4 == 0:
            parts.append(text(x + room / 2, _ROWS.inner_bottom + 16, str(place)))
    parts.append(line(_ROWS.left, _ROWS.inner_bottom, _ROWS.inner_right, _ROWS.inner_bottom, "axis"))
    parts.append(text((_ROWS.left + _ROWS.inner_right) / 2, _ROWS.height - 8, "action", css="label"))
    parts.append(upright(13, (_ROWS.top + _ROWS.inner_bottom) / 2, f"|error|, {unit}"))
    return picture(_ROWS.width, _ROWS.height, f"action error by row, {unit}", parts)


def joint_bars(chunk: ChunkError) -> str:
    """Error of every joint: bars are means, marks greatest values; each unit has its own scale."""
    width, left, room = 620.0, _LABEL_WIDTH, 116.0
    scales = {
        joint.unit: _greatest([other.max_abs for other in chunk.joints if other.unit == joint.unit]) or 1.0
        for joint in chunk.joints
    }
    parts = []
    for place, joint in enumerate(chunk.joints):
        y, scale = place * 26.0, (width - left - room) / scales[joint.unit]
        words = f"{number(joint.mean_abs, '.3g')}, at most {number(joint.max_abs, '.3g')} {joint.unit}"
        parts.append(text(left - 10, y + 16, joint.field, "end"))
        parts.append(rectangle(left, y + 4, width - left - room, 16, "absent", f"{joint.field}: {words}"))
        if joint.mean_abs is not None and joint.max_abs is not None:
            parts.append(rectangle(left, y + 4, max(1.0, scale * joint.mean_abs), 16, "s0", f"mean: {words}"))
            parts.append(rectangle(left + scale * joint.max_abs - 1.5, y + 2, 3, 20, "s1", f"greatest: {words}"))
        parts.append(text(width - room + 10, y + 16, joint.unit, "start"))
    return picture(width, 26.0 * len(chunk.joints), "action error by joint", parts)


def chunk_map(chunk: ChunkError) -> str:
    """Mean error of each joint in each row; every joint has its own scale, its own greatest value."""
    rows = len(chunk.rows)
    wide = max(9.0, min(26.0, (_WIDEST - _LABEL_WIDTH) / rows))
    parts = []
    for place, joint in enumerate(chunk.joints):
        y = place * _CELL
        parts.append(text(_LABEL_WIDTH - 10, y + 14, joint.field, "end"))
        greatest = _greatest([row[place] for row in chunk.rows])
        for step, row in enumerate(chunk.rows):
            value = row[place]
            shade = SHADES - 1 if value is None else min(SHADES - 1, int(SHADES * value / (greatest or 1.0)))
            tip = f"{joint.field}, action {step}: mean error {number(value, '.4g')} {joint.unit}"
            x = _LABEL_WIDTH + step * wide + 1
            parts.append(rectangle(x, y + 1, wide - 2, _CELL - 2, f"h{shade}", tip))
        words = f"up to {number(greatest, '.3g')} {joint.unit}"
        parts.append(text(_LABEL_WIDTH + rows * wide + 10, y + 14, words, "start"))
    bottom = len(chunk.joints) * _CELL
    for place in range(0, rows, 4):
        parts.append(text(_LABEL_WIDTH + (place + 0.5) * wide, bottom + 15, str(place)))
    parts.append(text(_LABEL_WIDTH - 10, bottom + 15, "action", "end"))
    return picture(_LABEL_WIDTH + rows * wide + 200, bottom + 22, "action error by joint and row", parts)


def site_map(
    sites: Sequence[SiteError], value: Callable[[SiteError], Figures | None], limits: tuple[float, float], label: str
) -> str:
    """SQNR of each projection of a tower, a column a layer: the darker, the noisier."""
    layers = 1 + max(site.layer for site in sites)
    rows = list(dict.fromkeys(site.projection for site in sites))
    wide = max(9.0, min(30.0, (_WIDEST - _LABEL_WIDTH) / layers))
    parts = [text(_LABEL_WIDTH - 10, (n + 0.5) * _CELL + 4, row, "end") for n, row in enumerate(rows)]
    for site in sites:
        found = value(site)
        css = "absent" if found is None else f"h{_shade(found, limits)}"
        words = "not quantized, or not measured" if found is None else decibels(found)
        x, y = _LABEL_WIDTH + site.layer * wide, rows.index(site.projection) * _CELL
        parts.append(rectangle(x + 1, y + 1, wide - 2, _CELL - 2, css, f"{site.site}, {site.scheme}: {words}"))
    every = next(step for step in (1, 2, 4, 8, 16) if step * wide >= 22 or step == 16)
    bottom = len(rows) * _CELL
    for layer in range(0, layers, every):
        parts.append(text(_LABEL_WIDTH + (layer + 0.5) * wide, bottom + 15, str(layer)))
    parts.append(text(_LABEL_WIDTH - 10, bottom + 15, "layer", "end"))
    return picture(_LABEL_WIDTH + layers * wide + 2, bottom + 22, label, parts)


def sqnr_limits(values: Sequence[Figures | None]) -> tuple[float, float]:
    """Noisiest and cleanest value in dB, at least 6 apart, for one ramp over several maps."""
    known = [value.sqnr_db for value in values if value is not None and value.sqnr_db is not None]
    if not known:
        return 0.0, 6.0
    low, high = math.floor(min(known)), math.ceil(max(known))
    return (low, high) if high - low >= 6 else ((low + high) / 2 - 3, (low + high) / 2 + 3)


def size_bars(sizes: Sequence[tuple[str, int, int]], words: Callable[[int], str]) -> str:
    """Bytes before and after, a pair of bars a graph."""
    largest = max(before for _, before, _ in sizes)
    width, left = 620.0, 110.0
    parts = []
    for place, (name, before, after) in enumerate(sizes):
        y = place * 54.0
        parts.append(text(left - 10, y + 27, name, "end"))
        for shift, value, css in ((4.0, before, "s-none"), (26.0, after, "s0")):
            length = max(2.0, (width - left - 190) * value / largest)
            parts.append(rectangle(left, y + shift, length, 18, css, f"{name}: {words(value)}"))
            share = "" if value == before else f", {100 * value / before:.0f} %"
            parts.append(text(left + length + 8, y + shift + 13, words(value) + share, "start"))
    return picture(width, len(sizes) * 54.0, "size of the weights", parts)


def _shade(figures: Figures, limits: tuple[float, float]) -> int:
    low, high = limits
    if figures.sqnr_db is None:
        return 0 if figures.relative_l2 == 0 else SHADES - 1
    return max(0, min(SHADES - 1, int(SHADES * (high - figures.sqnr_db) / (high - low))))


def _scale(frame: Frame, y: Axis, words: Callable[[float], str]) -> list[str]:
    """Faint lines across a frame with their values at its left."""
    parts = []
    for value in y.ticks():
        parts.append(line(frame.left, y.at(value), frame.inner_right, y.at(value), "grid"))
        parts.append(text(frame.left - 8, y.at(value) + 4, words(value), "end"))
    return parts


def _bar(x: float, width: float, frame: Frame, y: Axis, value: float | None, css: str, tip: str) -> str:
    """An upright bar from zero; one as high as the frame, in the colour of a missed gate, for what is not finite."""
    top = frame.top if value is None else y.at(value)
    return rectangle(x, top, width, frame.inner_bottom - top, "s5" if value is None else css, tip)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _greatest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None
