"""Success over cost, and over the open-loop error, as inline SVG that follows the page's theme."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from examples.train_small.closed_loop.rows import EXPERT, POINT, REFERENCE, STRAIGHT, UNTRAINED
from motedge.quant.page.svg import Axis, Frame, circle, line, log_range, path, percent, picture, text

Row = Mapping[str, Any]
Point = tuple[float, float]
# Left, top, right, bottom in pixels
Box = tuple[float, float, float, float]
_FRAME = Frame(560, 380, left=66, bottom=46)
_LINE_PX, _LETTER_PX = 15.0, 6.4
# Classes of the page's style sheet, and what they stand for
KINDS = {"s0": "fp32 at its operating points", "s1": "other recipes", "s5": "untrained, or blind", "s2": "the expert"}


@dataclass(frozen=True)
class Quantity:
    """What an axis shows."""

    title: str
    of: Callable[[Row], float]
    log: bool = False
    share: bool = False

    def axis(self, values: Sequence[float], start: float, end: float) -> Axis:
        """Around the values."""
        if self.share:
            return Axis(0.0, 1.04, start, end)
        if self.log:
            return Axis(*log_range(values), start, end, log=True)
        return Axis(0.0, max(*values, 1e-9) * 1.08, start, end)

    def word(self, value: float) -> str:
        """A tick's label."""
        return percent(value) if self.share else f"{value:g}"


SUCCESS = Quantity("drives that succeeded, with 95 % intervals", lambda row: float(row["success"]), share=True)
PLAN_MS = Quantity("a plan on this machine, ms, median", lambda row: float(row["plan_ms"]["p50"]), log=True)
WEIGHTS_MB = Quantity("weights of both towers, MB", lambda row: float(row["towers_mb"]))
OPEN_LOOP_M = Quantity("open-loop error, m", lambda row: float(row["open_loop_m"]["mean"]), log=True)
LINE_M = Quantity("distance from the line that was told, m", lambda row: float(row["line_m"]))


def scatter(rows: Sequence[Row], across: Quantity, up: Quantity, *, front: bool = False) -> str:
    """A dot a row, named; intervals where `up` is success; if asked for the Pareto front: less across, more up."""
    if not rows:
        return "<p>Nothing of it was driven.</p>"
    x = across.axis([across.of(row) for row in rows], _FRAME.left, _FRAME.inner_right)
    y = up.axis([up.of(row) for row in rows], _FRAME.inner_bottom, _FRAME.top)
    places = [(x.at(across.of(row)), y.at(up.of(row))) for row in rows]
    parts = _axes(x, y, across, up)
    if front:
        best = pareto_front([(across.of(row), up.of(row)) for row in rows])
        parts.append(path(_stairs([(x.at(a), y.at(b)) for a, b in best]), "front"))
    if up.share:
        parts += [
            line(place[0], y.at(row["interval"][0]), place[0], y.at(row["interval"][1]), "axis")
            for row, place in zip(rows, places, strict=True)
        ]
    for row, place in zip(rows, places, strict=True):
        tip = (
            f"{row['row']}: {across.word(across.of(row))} {across.title}; {row['successes']} of {row['drives']} drives"
        )
        parts.append(circle(*place, 5, kind_of(row), tip))
    parts += _names([_label(row) for row in rows], places)
    return picture(_FRAME.width, _FRAME.height, f"{up.title} over {across.title}", parts)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Points that none beats: less or as much of the first, and more of the second; by the first, ascending."""
    front: list[Point] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def kind_of(row: Row) -> str:
    """The colour's class, one of KINDS."""
    driver = row["driver"]
    if driver == EXPERT:
        return "s2"
    if driver in (STRAIGHT, UNTRAINED):
        return "s5"
    return "s0" if driver == REFERENCE else "s1"


def short_name(row: Row) -> str:
    """The row's name beside its dot."""
    if row["driver"] != REFERENCE:
        return str(row["driver"])
    return f"{REFERENCE}, {row['point']}".replace("guidance 3 where 400 < t < 900", "guidance 3 in part")


def _label(row: Row) -> str:
    """As `short_name`; the colour tells the reference's operating points."""
    return (
        REFERENCE
        if (row["driver"], row["point"]) == (REFERENCE, POINT)
        else short_name(row).removeprefix(f"{REFERENCE}, ")
    )


def _axes(x: Axis, y: Axis, across: Quantity, up: Quantity) -> list[str]:
    parts = []
    for value in y.ticks():
        if up.share and value > 1:
            continue
        parts.append(line(_FRAME.left, y.at(value), _FRAME.inner_right, y.at(value), "grid"))
        parts.append(text(_FRAME.left - 8, y.at(value) + 4, up.word(value), "end"))
    parts += [text(x.at(value), _FRAME.inner_bottom + 18, across.word(value)) for value in x.ticks()]
    parts.append(line(_FRAME.left, _FRAME.inner_bottom, _FRAME.inner_right, _FRAME.inner_bottom, "axis"))
    middle = (_FRAME.left + _FRAME.inner_right) / 2, (_FRAME.top + _FRAME.inner_bottom) / 2
    parts.append(text(middle[0], _FRAME.height - 6, across.title, css="label"))
    parts.append(f'<g transform="translate(13 {middle[1]:.1f}) rotate(-90)">{text(0, 0, up.title, css="label")}</g>')
    return parts


def _stairs(points: Sequence[Point]) -> list[Point]:
    stairs = [points[0]]
    for x, y in points[1:]:
        stairs += [(x, stairs[-1][1]), (x, y)]
    return stairs


def _names(names: Sequence[str], places: Sequence[Point]) -> list[str]:
    """Names in the nearest free place beside their dots, with a line to those that are far; the tooltip has all."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    parts = []
    for name, place in sorted(zip(names, places, strict=True), key=lambda pair: pair[1][::-1]):
        box = next((box for box in _boxes(place, len(name) * _LETTER_PX) if not _taken(box, taken)), None)
        if box is None:
            continue
        taken.append(box)
        middle = (box[1] + box[3]) / 2
        if abs(middle - place[1]) > _LINE_PX:
            parts.append(line(*place, box[0] - 2 if box[0] > place[0] else box[2] + 2, middle, "grid"))
        parts.append(text(box[0], middle + 4, name, "start", "note halo"))
    return parts


def _boxes(place: Point, wide: float) -> Iterator[Box]:
    """Places for a name, the nearest first, inside the plot."""
    for step in sorted(range(-16, 17), key=lambda step: (abs(step), -step)):
        top = place[1] - _LINE_PX / 2 + step * _LINE_PX
        for left in (place[0] + 9, place[0] - 9 - wide):
            box = (left, top, left + wide, top + _LINE_PX)
            if box[0] > _FRAME.left and box[2] < _FRAME.width and top > 0 and box[3] < _FRAME.inner_bottom:
                yield box


def _taken(box: Box, taken: Sequence[Box]) -> bool:
    return any(box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken)
