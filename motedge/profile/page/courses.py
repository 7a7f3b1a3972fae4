"""Pictures over time and of distributions: ticks one by one, how many take how long, what sensors read meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from motedge.quant.page.svg import Axis, Frame, circle, line, path, picture, rectangle, text
from motedge.units import format_ms

PHASE_COLOURS = {
    "first": "s5",
    "warm-up": "s-none",
    "warm": "s0",
    "new prompt": "s1",
    "energy": "s2",
    "step by step": "s3",
}
_PHASE_WORDS = {"first": "first", "warm-up": "warm-up", "idle": "rest"}
_TICKS = Frame(1140, 300, left=78, right=16, top=28, bottom=46)
_SHARES = Frame(1140, 280, left=78, right=60, top=18, bottom=46)
_SENSORS = Frame(1140, 210, left=78, right=16, top=24, bottom=40)
# Lines of one picture: as many as there are colours
MOST_LINES = 8
# Points of one picture
_MOST_POINTS = 2500
# Ticks that are longer than so many medians lie on the upper edge
_HIGHEST = 4.0


def tick_course(document: Mapping[str, Any]) -> str:
    """Every tick as a point: when it began, how long it took."""
    samples = document["samples"]
    ticks = samples["stages_ms"].get("tick")
    if not ticks:
        return ""
    frame, summary = _TICKS, document["summary"]["tick"]
    warm = summary["p50"] if summary else sorted(ticks)[len(ticks) // 2]
    deadline = document["deadline"]["limit"] if document["deadline"] else None
    # Of the first tick alone no scale can be made; warm ones decide
    top = min(max(ticks), _HIGHEST * warm)
    if deadline is not None and deadline < _HIGHEST * warm:
        top = max(top, deadline)
    y = Axis(0.0, 1.06 * top, frame.inner_bottom, frame.top)
    x = Axis(0.0, _end_s(document), frame.left, frame.inner_right)
    parts = [*_phases(document, frame, x), *_scales(frame, x, y, "ms")]
    every = -(-len(ticks) // _MOST_POINTS)
    for number in range(0, len(ticks), every):
        ms, phase = ticks[number], samples["phase"][number]
        tip = f"{phase} tick {number}: {format_ms(ms)}"
        height = y.at(min(ms, y.high))
        parts.append(circle(x.at(samples["start_s"][number]), height, 3, PHASE_COLOURS.get(phase, "s7"), tip))
        if ms > y.high:
            parts.append(text(x.at(samples["start_s"][number]) + 7, height + 4, format_ms(ms), "start", "note"))
    if deadline is not None and deadline <= y.high:
        parts.append(line(frame.left, y.at(deadline), frame.inner_right, y.at(deadline), "bound"))
        parts.append(text(frame.inner_right - 4, y.at(deadline) - 5, f"deadline {deadline:g} ms", "end", "note"))
    return picture(frame.width, frame.height, "ticks over time", parts)


def share_course(document: Mapping[str, Any]) -> str:
    """Which share of the warm ticks took how long at most, with the percentiles that can be told."""
    samples, summary = document["samples"], document["summary"]["tick"]
    if summary is None:
        return ""
    ticks = sorted(ms for ms, phase in zip(samples["stages_ms"]["tick"], samples["phase"]) if phase == "warm")
    frame = _SHARES
    room = max(0.04 * (ticks[-1] - ticks[0]), 0.002 * ticks[-1], 1e-6)
    x = Axis(ticks[0] - room, ticks[-1] + room, frame.left, frame.inner_right)
    y = Axis(0.0, 1.0, frame.inner_bottom, frame.top)
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0):
        parts.append(line(frame.left, y.at(share), frame.inner_right, y.at(share), "grid"))
        parts.append(text(frame.left - 8, y.at(share) + 4, f"{100 * share:.0f} %", "end"))
    for value in x.ticks():
        parts.append(text(x.at(value), frame.inner_bottom + 18, f"{value:g}"))
    points = [(x.low, 0.0)]
    for number, ms in enumerate(ticks):
        points += [(ms, number / len(ticks)), (ms, (number + 1) / len(ticks))]
    points.append((x.high, 1.0))
    parts.append(path([(x.at(ms), y.at(share)) for ms, share in points], "l0"))
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        value = summary[name]
        if value is not None:
            parts.append(line(x.at(value), y.at(share), x.at(value), frame.inner_bottom, "predicted"))
            words = f"{name} {format_ms(value)}"
            left = x.at(value) < frame.inner_right - 110
            side = ("start", 6) if left else ("end", -6)
            parts.append(text(x.at(value) + side[1], y.at(share) + 16, words, side[0], "note halo"))
    parts.append(line(frame.left, frame.inner_bottom, frame.inner_right, frame.inner_bottom, "axis"))
    parts.append(text((frame.left + frame.inner_right) / 2, frame.height - 6, "ms, at most", css="label"))
    return picture(frame.width, frame.height, "share of ticks by time", parts)


def sensor_course(document: Mapping[str, Any], names: Sequence[str], unit: str) -> str:
    """Series of one unit over time, a colour each in their order.

    Args:
        document: the profile.
        names: keys of its sensors' series, MOST_LINES at most.
        unit: of the values.
    """
    frame, series = _SENSORS, [document["sensors"]["series"][name] for name in names]
    values = [value for entry in series for value in entry["values"]]
    if not values:
        return ""
    low, high = min(values), max(values)
    # A quantity that hardly moves would fill the picture with its noise
    room = max(0.08 * (high - low), 0.02 * abs(high), 1e-6)
    # From zero, unless all lie far above
    start = 0.0 if low >= 0 and low < 0.5 * high else low - room
    y = Axis(start, high + room, frame.inner_bottom, frame.top)
    x = Axis(0.0, _end_s(document), frame.left, frame.inner_right)
    parts = [*_phases(document, frame, x), *_scales(frame, x, y, unit)]
    for number, entry in enumerate(series):
        points = [
            (x.at(at_s), y.at(value)) for at_s, value in zip(entry["time_s"], entry["values"]) if 0 <= at_s <= x.high
        ]
        if points:
            parts.append(path(points, f"l{number}"))
    return picture(frame.width, frame.height, f"sensors in {unit}", parts)


def _end_s(document: Mapping[str, Any]) -> float:
    ends: list[float] = [phase["end_s"] for phase in document["phases"]]
    starts: list[float] = document["samples"]["start_s"]
    return max([*ends, *starts, 1e-3])


def _phases(document: Mapping[str, Any], frame: Frame, x: Axis) -> list[str]:
    """Each phase as a band, every second one shaded, named where there is room."""
    parts = []
    for number, entry in enumerate(document["phases"]):
        left, right = x.at(entry["start_s"]), x.at(entry["end_s"])
        if number % 2 == 0:
            height = frame.inner_bottom - frame.top
            parts.append(rectangle(left, frame.top, right - left, height, "band", entry["phase"]))
        name = _PHASE_WORDS.get(entry["phase"], entry["phase"])
        if right - left > 7 * len(name) + 4:
            parts.append(text((left + right) / 2, frame.top - 8, name, css="label"))
    return parts


def _scales(frame: Frame, x: Axis, y: Axis, unit: str) -> list[str]:
    parts = []
    for value in y.ticks():
        parts.append(line(frame.left, y.at(value), frame.inner_right, y.at(value), "grid"))
        parts.append(text(frame.left - 8, y.at(value) + 4, f"{value:g}", "end"))
    for value in x.ticks():
        parts.append(text(x.at(value), frame.inner_bottom + 18, f"{value:g}"))
    parts.append(line(frame.left, frame.inner_bottom, frame.inner_right, frame.inner_bottom, "axis"))
    parts.append(text(14, frame.top - 8, unit, "start", "label"))
    parts.append(text((frame.left + frame.inner_right) / 2, frame.height - 6, "s since the start", css="label"))
    return parts


def chosen_series(document: Mapping[str, Any], kind: str) -> tuple[list[str], Optional[str]]:
    """Keys of the series of a kind that are drawn, those that move most first; and what is said of the rest."""
    series = document["sensors"]["series"]
    found = [name for name, entry in series.items() if entry["kind"] == kind and entry["values"]]
    found.sort(key=lambda name: min(series[name]["values"]) - max(series[name]["values"]))
    left_out = len(found) - MOST_LINES
    return found[:MOST_LINES], f"{left_out} that move less are in profile.json" if left_out > 0 else None
