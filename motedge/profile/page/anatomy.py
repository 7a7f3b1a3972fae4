"""Pictures of what a tick consists of: its stages on a line, cold and warm, and its steps side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from motedge.profile.measurement import STEPS
from motedge.profile.page.stage_colours import colour
from motedge.profile.stages import GPU, is_sum, step_of
from motedge.quant.page.svg import Axis, Frame, line, picture, rectangle, text
from motedge.units import format_ms

_ROW, _BAR = 44, 24
# A cold tick that is so much longer than a warm one is cut off
_MOST = 2.5
# Narrower pieces get no name
_NAMED_WIDTH = 54.0
_STEPS = Frame(1140, 280, left=70, right=20, top=16, bottom=48)


def tick_bars(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """A row a kind of tick: its stages one after the other, medians; of a GPU, its work as a row of its own."""
    rows: list[tuple[str, list[tuple[str, float]], float]] = []
    for phase, words in (("warm", "warm, median"), ("new prompt", "new prompt, median"), ("first", "first tick")):
        pieces = _pieces(stages, phase, device=False)
        whole = stages.get("tick", {}).get(phase)
        if pieces and whole:
            rows.append((words, pieces, whole["p50"]))
            device = _pieces(stages, phase, device=True)
            if device and phase == "warm":
                rows.append(("of it the GPU", device, sum(ms for _, ms in device)))
    if not rows:
        return ""
    frame = Frame(1140, 22 + _ROW * len(rows) + 46, left=150, right=110, top=14, bottom=46)
    longest = min(max(whole for *_, whole in rows), _MOST * rows[0][2])
    x = Axis(0.0, 1.02 * longest, frame.left, frame.inner_right)
    parts = []
    for value in x.ticks():
        parts.append(line(x.at(value), frame.top, x.at(value), frame.inner_bottom, "grid"))
        parts.append(text(x.at(value), frame.inner_bottom + 18, f"{value:g}"))
    for number, (words, pieces, whole) in enumerate(rows):
        y = frame.top + _ROW * number + (_ROW - _BAR) / 2
        parts.append(text(frame.left - 10, y + 16, words, "end", "note"))
        parts += _row(pieces, x, y, words)
        beyond = whole > 1.02 * longest
        parts.append(text(frame.inner_right + 8, y + 16, format_ms(whole) + (" →" if beyond else ""), "start", "note"))
    middle = (frame.left + frame.inner_right) / 2
    parts.append(text(middle, frame.height - 6, "ms since the observation", css="label"))
    return picture(frame.width, frame.height, "stages of a tick", parts)


def step_bars(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """Median of each part of each denoising step, with a whisker to the greatest; empty where steps are not told."""
    found: dict[int, dict[str, Mapping[str, float]]] = {}
    for name, phases in stages.items():
        step, told = step_of(name.replace(GPU, "", 1)), phases.get("warm") or phases.get(STEPS)
        if step is not None and told is not None:
            found.setdefault(step[0], {})[step[1]] = told
    if not found:
        return ""
    frame = _STEPS
    highest = max(part["max"] for parts in found.values() for part in parts.values())
    typical = max(part["p50"] for parts in found.values() for part in parts.values())
    # One outlier must not flatten all bars
    y = Axis(0.0, 1.08 * min(highest, 3 * typical), frame.inner_bottom, frame.top)
    parts = [text(16, frame.top + 4, "ms", "start", "label")]
    for value in y.ticks():
        parts.append(line(frame.left, y.at(value), frame.inner_right, y.at(value), "grid"))
        parts.append(text(frame.left - 8, y.at(value) + 4, f"{value:g}", "end"))
    room = (frame.inner_right - frame.left) / len(found)
    wide = min(44.0, 0.26 * room)
    for place, (number, pieces) in enumerate(sorted(found.items())):
        middle = frame.left + (place + 0.5) * room
        left = middle - wide * len(pieces) / 2
        for offset, part in enumerate(part for part in ("cond", "uncond", "solver") if part in pieces):
            parts += _whiskered(left + offset * wide, wide, frame, y, pieces[part], f"step {number} {part}")
        parts.append(text(middle, frame.inner_bottom + 18, f"step {number}"))
    parts.append(line(frame.left, frame.inner_bottom, frame.inner_right, frame.inner_bottom, "axis"))
    return picture(frame.width, frame.height, "denoising steps", parts)


def _pieces(stages: Mapping[str, Mapping[str, Any]], phase: str, *, device: bool) -> list[tuple[str, float]]:
    found = []
    for name, phases in stages.items():
        if phase not in phases or (is_sum(name) and name != "between stages"):
            continue
        told_apart = name.startswith(GPU) and step_of(name[len(GPU) :]) is not None
        if name.startswith(GPU) == device and not told_apart:
            found.append((name[len(GPU) :] if device else name, float(phases[phase]["p50"])))
    return found


def _row(pieces: Sequence[tuple[str, float]], x: Axis, y: float, words: str) -> list[str]:
    parts, start_ms = [], 0.0
    for name, ms in pieces:
        end_ms = min(start_ms + ms, x.high)
        width = x.at(end_ms) - x.at(start_ms)
        if width > 0.15:
            tip = f"{words}: {name} {format_ms(ms)}"
            parts.append(rectangle(x.at(start_ms), y, max(width - 0.6, 0.4), _BAR, colour(name), tip))
        label = _label(name)
        if label is not None and width > _NAMED_WIDTH:
            parts.append(text(x.at(start_ms) + width / 2, y + 16, label, css="on"))
        start_ms = end_ms
    return parts


def _label(stage: str) -> Optional[str]:
    step = step_of(stage)
    if step is not None:
        return f"{step[0]} {step[1]}"
    return {"vae_encoder": "encoder", "between stages": None}.get(stage, stage)


def _whiskered(x: float, wide: float, frame: Frame, y: Axis, part: Mapping[str, Any], words: str) -> list[str]:
    tip = f"{words}: p50 {format_ms(part['p50'])}, {format_ms(part['min'])} to {format_ms(part['max'])}"
    top, middle = y.at(min(part["p50"], y.high)), x + wide / 2
    ends = [y.at(min(part[key], y.high)) for key in ("min", "max")]
    return [
        rectangle(x + 1, top, wide - 2, frame.inner_bottom - top, colour(words), tip),
        line(middle, ends[0], middle, ends[1], "axis"),
        line(middle - 4, ends[1], middle + 4, ends[1], "axis"),
    ]
