"""Picture of graphs against what the device could do: the bound, the plan's interval, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from motedge.quant.page.svg import Axis, Frame, circle, line, log_range, picture, rectangle, text
from motedge.units import format_ms

_ROW = 46


def roofline_bars(roofline: Mapping[str, Any]) -> str:
    """A row a graph on a logarithmic axis of ms; empty where no bound is known."""
    known = {name: entry for name, entry in roofline["graphs"].items() if entry["bound_ms"]}
    if not known:
        return ""
    frame = Frame(1140, 14 + _ROW * len(known) + 46, left=120, right=190, top=14, bottom=46)
    keys = ("bound_ms", "predicted_low_ms", "predicted_high_ms", "measured_ms")
    x = Axis(
        *log_range([entry[key] for entry in known.values() for key in keys]), frame.left, frame.inner_right, log=True
    )
    parts = []
    for value in x.ticks():
        parts.append(line(x.at(value), frame.top, x.at(value), frame.inner_bottom, "grid"))
        parts.append(text(x.at(value), frame.inner_bottom + 18, f"{value:g}"))
    for number, (name, entry) in enumerate(known.items()):
        y = frame.top + _ROW * (number + 0.5)
        left, right = x.at(entry["predicted_low_ms"]), x.at(entry["predicted_high_ms"])
        span = f"{format_ms(entry['predicted_low_ms'])} to {format_ms(entry['predicted_high_ms'])}"
        parts.append(text(frame.left - 10, y + 4, name, "end", "note"))
        parts.append(rectangle(left, y - 9, right - left, 18, "h2", f"{name}: planned {span}"))
        place = x.at(entry["bound_ms"])
        parts.append(rectangle(place - 1.5, y - 14, 3, 28, "s5", f"{name}: at best {format_ms(entry['bound_ms'])}"))
        measured = format_ms(entry["measured_ms"])
        parts.append(circle(x.at(entry["measured_ms"]), y, 6, "s0", f"{name}: measured {measured}"))
        words = f"{measured}, {100 * entry['fraction']:.3g} % of {entry['bound_by']}"
        parts.append(text(frame.inner_right + 10, y + 4, words, "start", "note"))
    parts.append(text((frame.left + frame.inner_right) / 2, frame.height - 6, "ms a run", css="label"))
    return picture(frame.width, frame.height, "graphs against the roofline", parts)
