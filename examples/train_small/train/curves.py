"""Learning curves as a picture: an SVG of one panel a quantity, on logarithmic axes upwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from motedge.files import atomic_open

_WIDTH, _HEIGHT, _MARGIN = 420, 220, 46


def write_curves(path: Path, parts: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Draws the curves of each part of a training.

    Args:
        path: an .svg.
        parts: part -> what was logged: "step" and other values above 0.

    Raises:
        HostError: the disk is full or not writable.
    """
    panels = []
    for row, (part, points) in enumerate(parts.items()):
        names = [name for name in (points[0] if points else {}) if name != "step"]
        panels += [_panel(f"{part}: {name}", name, points, at, row) for at, name in enumerate(names)]
    columns = max((len(points[0]) - 1 for points in parts.values() if points), default=1)
    size = f'width="{columns * _WIDTH}" height="{len(parts) * _HEIGHT}"'
    body = "\n".join(panels)
    with atomic_open(path, "w") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">\n')
        file.write(f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n')


def _panel(title: str, name: str, points: Sequence[Mapping[str, float]], column: int, row: int) -> str:
    left, top = column * _WIDTH, row * _HEIGHT
    known = [(point["step"], point[name]) for point in points if point[name] > 0]
    if not known:
        return f'<text x="{left + _MARGIN}" y="{top + 20}">{title}: nothing above 0</text>'
    last = max(step for step, _ in known)
    low, high = (math.log10(edge(value for _, value in known)) for edge in (min, max))
    span = max(high - low, 1e-9)
    wide, tall = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    line = " ".join(
        f"{left + _MARGIN + wide * step / last:.1f},{top + _MARGIN + tall * (high - math.log10(value)) / span:.1f}"
        for step, value in known
    )
    frame = f'<rect x="{left + _MARGIN}" y="{top + _MARGIN}" width="{wide}" height="{tall}" fill="none" stroke="#888"/>'
    words = (
        f'<text x="{left + _MARGIN}" y="{top + _MARGIN - 8}">{title}</text>'
        f'<text x="{left + 4}" y="{top + _MARGIN + 8}">{10**high:.2g}</text>'
        f'<text x="{left + 4}" y="{top + _MARGIN + tall}">{10**low:.2g}</text>'
        f'<text x="{left + _WIDTH - _MARGIN}" y="{top + _MARGIN + tall + 14}" text-anchor="end">step {last:.0f}</text>'
    )
    return f'{frame}{words}<polyline points="{line}" fill="none" stroke="#1f6fb4"/>'
