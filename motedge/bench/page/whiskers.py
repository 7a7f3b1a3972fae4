"""Lines through the dots of the front: the interval of the median time, and the spread over observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from motedge.quant.page.svg import Axis, line, log_range

# An axis goes on for so many times the least or greatest dot to show a line whole; beyond, the line ends in an arrow
_FARTHEST = 4.0
# Half the width of an arrow, in pixels
_ARROW = 4.0
# (Left, height, cell) of a dot, in pixels
Place = tuple[float, float, Mapping[str, Any]]


def time_ends(cell: Mapping[str, Any]) -> list[float]:
    """Interval of the median, ms; empty where there is none."""
    interval = cell["median_interval"]
    return [] if interval is None else [interval["low"], interval["high"]]


def error_ends(cell: Mapping[str, Any]) -> list[float]:
    """Least and greatest error of an observation; empty where there is one observation, or none has an error."""
    each = cell["from_shipped"]["by_observation"]
    return [min(each), max(each)] if len(each) > 1 and max(each) > 0 else []


def range_with(dots: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis around positive values of dots, and the ends of lines as far as they are not too far
    out."""
    low, high = min(dots) / _FARTHEST, max(dots) * _FARTHEST
    return log_range([*dots, *(min(max(end, low), high) for end in ends if end > 0)])


def whiskers(places: Sequence[Place], x: Axis, y: Optional[Axis], floor: float, *, time: bool) -> list[str]:
    """The lines.

    Args:
        places: dots on the front.
        x: of time, or of energy, which has no interval.
        y: of errors; None: there are none.
        floor: height of an error of 0.
        time: whether x is that of time.
    """
    parts = []
    for left, height, cell in places:
        ends = time_ends(cell) if time else []
        if ends:
            low, high = (x.at(min(max(end, x.low), x.high)) for end in ends)
            parts.append(line(low, height, high, height, "axis"))
            parts += _arrow(low, height, 1, 0) if ends[0] < x.low else []
            parts += _arrow(high, height, -1, 0) if ends[1] > x.high else []
        ends = error_ends(cell)
        if ends and y is not None:
            low = floor if ends[0] <= 0 else y.at(min(max(ends[0], y.low), y.high))
            high = y.at(min(max(ends[1], y.low), y.high))
            parts.append(line(left, low, left, high, "axis"))
            parts += _arrow(left, low, 0, -1) if 0 < ends[0] < y.low else []
            parts += _arrow(left, high, 0, 1) if ends[1] > y.high else []
    return parts


def _arrow(x: float, y: float, back_x: float, back_y: float) -> list[str]:
    """Two strokes from a tip, back in a direction and to both sides of it."""
    sides = (_ARROW, -_ARROW)
    return [
        line(x, y, x + 1.5 * _ARROW * back_x + side * back_y, y + 1.5 * _ARROW * back_y + side * back_x, "axis")
        for side in sides
    ]
