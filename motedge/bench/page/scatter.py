"""Pictures of error against what it costs: a dot a cell, a colour a recipe, the front as a line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from motedge.bench.page.whiskers import Place, error_ends, range_with, time_ends, whiskers
from motedge.bench.report import MEASURED, joules
from motedge.bench.text import is_sure, worst_words
from motedge.quant.page.svg import Axis, Frame, circle, line, path, picture, text, upright
from motedge.units import format_ms

COLOURS = 8
_FRAME = Frame(1140, 520, left=86, right=30, top=20, bottom=52)
# Below the least error there is room for those that have none, in pixels
_FLOOR = 46
# Names of points on the front: so far from one another at least, and so wide a letter, in pixels
_APART, _LETTER = 15, 6.6


def time_scatter(document: Mapping[str, Any]) -> str:
    """Error against the median time; empty where nothing is measured."""
    entries = _known(document, lambda cell: cell["latency_ms"]["p50"])
    return _scatter(document, entries, "time", "ms a chunk, median", "error against time")


def energy_scatter(document: Mapping[str, Any]) -> str:
    """Error against the energy of a chunk; empty where it is not known."""
    entries = _known(document, joules)
    return _scatter(document, entries, "energy", "J a chunk", "error against energy")


def colour_of(document: Mapping[str, Any], candidate: str) -> str:
    """The class of a candidate's dots."""
    names = [entry["name"] for entry in document["candidates"]]
    return f"s{names.index(candidate) % COLOURS}"


def _known(document: Mapping[str, Any], cost: Any) -> list[tuple[float, float, Mapping[str, Any]]]:
    """(Cost, error, cell) of all that are measured whole."""
    found = []
    for cell in document["cells"]:
        if cell["status"] != MEASURED or cell["from_shipped"] is None:
            continue
        x, y = cost(cell), cell["from_shipped"]["relative_l2"]
        if x is not None and x > 0 and y is not None:
            found.append((float(x), float(y), cell))
    return found


def _scatter(
    document: Mapping[str, Any],
    entries: Sequence[tuple[float, float, Mapping[str, Any]]],
    front: str,
    label: str,
    title: str,
) -> str:
    if not entries:
        return ""
    frame = _FRAME
    lined = [cell for *_, cell in entries if cell["front"][front]]
    ends = [end for cell in lined for end in time_ends(cell)] if front == "time" else []
    x = Axis(*range_with([cost for cost, *_ in entries], ends), frame.left, frame.inner_right, log=True)
    errors = [error for _, error, _ in entries if error > 0]
    y = _error_axis(errors, [end for cell in lined for end in error_ends(cell)], frame)
    floor = frame.inner_bottom - 14
    places = [(x.at(cost), floor if y is None or error == 0 else y.at(error), cell) for cost, error, cell in entries]
    parts = _scales(frame, x, y, label)
    parts.append(text(frame.left - 8, floor + 4, "0", "end"))
    on_front = sorted((place for place in places if place[2]["front"][front]), key=lambda place: (place[0], place[1]))
    parts.append(path(_stairs([(left, height) for left, height, _ in on_front], frame), "front"))
    parts += whiskers(on_front, x, y, floor, time=front == "time")
    for left, height, cell in sorted(places, key=lambda place: bool(place[2]["front"][front])):
        chance = front == "time" and not is_sure(cell)
        radius = 3.6 if not cell["front"][front] else 5 if chance else 7
        parts.append(circle(left, height, radius, colour_of(document, cell["candidate"]), _tip(cell)))
    parts += _names(on_front, places, frame)
    return picture(frame.width, frame.height, title, parts)


def _error_axis(errors: Sequence[float], ends: Sequence[float], frame: Frame) -> Optional[Axis]:
    """Logarithmic, above the place of cells without any error; None where all are without."""
    if not errors:
        return None
    return Axis(*range_with(errors, ends), frame.inner_bottom - _FLOOR, frame.top, log=True)


def _scales(frame: Frame, x: Axis, y: Optional[Axis], label: str) -> list[str]:
    parts = []
    for value in _ticks(x):
        parts.append(line(x.at(value), frame.top, x.at(value), frame.inner_bottom, "grid"))
        parts.append(text(x.at(value), frame.inner_bottom + 18, f"{value:g}"))
    for value in [] if y is None else _ticks(y):
        parts.append(line(frame.left, y.at(value), frame.inner_right, y.at(value), "grid"))  # type: ignore[union-attr]
        parts.append(text(frame.left - 8, y.at(value) + 4, f"{100 * value:.3g} %", "end"))  # type: ignore[union-attr]
    parts.append(line(frame.left, frame.inner_bottom, frame.inner_right, frame.inner_bottom, "axis"))
    parts.append(text((frame.left + frame.inner_right) / 2, frame.height - 8, label, css="label"))
    parts.append(upright(16, (frame.top + frame.inner_bottom) / 2, "action error, relative L2"))
    return parts


def _ticks(axis: Axis) -> list[float]:
    """Those of the axis; more of them where it has not four, and evenly spaced where it spans far too little."""
    found = axis.ticks()
    powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        if len(found) < 4:
            values = [step * 10.0**power for power in powers for step in steps]
            found = [value for value in values if axis.low <= value <= axis.high]
    if len(found) < 3:
        step = 10.0 ** math.floor(math.log10(axis.high - axis.low))
        first, last = math.ceil(axis.low / step), math.floor(axis.high / step)
        found = [round(number * step, 12) for number in range(first, last + 1)]
    return found


def _stairs(points: Sequence[tuple[float, float]], frame: Frame) -> list[tuple[float, float]]:
    """What is reached at a cost: nothing before the first point, then the best so far, on to the right edge."""
    found: list[tuple[float, float]] = []
    for left, height in points:
        if found:
            found.append((left, found[-1][1]))
        found.append((left, height))
    return [*found, (frame.inner_right, found[-1][1])] if found else [(frame.left, frame.top)]


def _names(on_front: Sequence[Place], places: Sequence[Place], frame: Frame) -> list[str]:
    """Names above the dots of the front, or below them where other dots are in the way, the sure ones first; left out
    where they would lie on another name, for a dot tells its own."""
    parts: list[str] = []
    taken: list[tuple[float, float, float]] = []
    for left, height, cell in sorted(on_front, key=lambda place: not is_sure(place[2])):
        wide = _LETTER * len(cell["id"])
        # Towards the middle, where there is room
        far = left + wide > frame.inner_right
        start = left - 9 - wide if far else left + 9
        free = [
            at
            for at in (height - 10, min(height + 20, frame.inner_bottom - 3))
            if not any(abs(at - other) < _APART and start < end and begin < start + wide for begin, end, other in taken)
        ]
        clear = [
            at for at in free if not any(start - 8 < x < start + wide + 8 and -14 < y - at < 8 for x, y, _ in places)
        ]
        if not free or (not clear and free[0] > height):
            continue
        at = (clear or free)[0]
        taken.append((start, start + wide, at))
        label = text(left + (-9 if far else 9), at, cell["id"], "end" if far else "start", "note")
        parts.append(f'<g class="halo">{label}</g>')
    return parts


def _tip(cell: Mapping[str, Any]) -> str:
    latency, error = cell["latency_ms"], cell["from_shipped"]
    energy = joules(cell)
    words = [
        cell["id"],
        f"{format_ms(latency['p50'])}, median of {latency['count']}",
        f"error {100 * error['relative_l2']:.3g} %, at worst {worst_words(error)}",
    ]
    return "; ".join(words + ([] if energy is None else [f"{energy:.3g} J"]))
