"""The plot of size against error: uniform recipes, mixtures, and the one that was chosen."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from motedge.quant.page.svg import Axis, Frame, grid, line, log_range, path, percent, picture, text

_FRAME = Frame(560, 350)


def pareto_plot(
    points: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any], key: str, title: str, bound: Optional[float] = None
) -> str:
    """One plot as SVG.

    Args:
        points: summaries of points, see motedge.quant.sensitivity.report.point_summary.
        chosen: the one that was chosen.
        key: the error to plot: "error", "held_out_chunk" or "held_out_latent".
        title: of the vertical axis.
        bound: the greatest error that was asked for, where it is of this kind.
    """
    shown = [point for point in points if (point[key] or 0) > 0]
    if not shown:
        return "<p>Nothing is quantized: there is no error to plot.</p>"
    predicted = [p for p in _front(points) if key == "error" and p["predicted"] > 0]
    values = [p[key] for p in shown] + [p["predicted"] for p in predicted] + ([bound] if bound else [])
    sizes = [point["bits"] for point in points]
    x = Axis(min(sizes) - 0.4, max(sizes) + 0.4, _FRAME.left, _FRAME.inner_right)
    y = Axis(*log_range(values), _FRAME.inner_bottom, _FRAME.top, log=True)
    parts = grid(_FRAME, x, y, "bits a weight, block scales included", title)
    if bound:
        parts.append(line(_FRAME.left, y.at(bound), _FRAME.inner_right, y.at(bound), "bound"))
        parts.append(text(_FRAME.inner_right - 4, y.at(bound) - 6, f"bound {percent(bound)}", "end", "note"))
    parts.append(path([(x.at(p["bits"]), y.at(p["predicted"])) for p in predicted], "predicted") if predicted else "")
    front = [p for p in _front(points) if (p[key] or 0) > 0]
    parts.append(path([(x.at(p["bits"]), y.at(p[key])) for p in front], "front"))
    parts += [_mark(point, x.at(point["bits"]), y.at(point[key]), key) for point in shown if point["kind"] != "uniform"]
    if (chosen[key] or 0) > 0:
        parts.append(f'<circle class="chosen" cx="{x.at(chosen["bits"]):.1f}" cy="{y.at(chosen[key]):.1f}" r="9"/>')
    uniform = [point for point in shown if point["kind"] == "uniform"]
    places = [(x.at(point["bits"]), y.at(point[key])) for point in uniform]
    for point, place in zip(uniform, places, strict=True):
        parts += [_mark(point, *place, key), _name(point, place, places)]
    return picture(_FRAME.width, _FRAME.height, f"{title} over bits a weight", parts)


def _front(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Mixtures by size, each size once."""
    mixtures = {point["bytes"]: point for point in points if point["kind"] != "uniform"}
    return [mixtures[size] for size in sorted(mixtures)]


def _mark(point: Mapping[str, Any], x: float, y: float, key: str) -> str:
    tip = f"{point['name']}: {point['bits']:.3f} bits a weight, {percent(point[key])}"
    title = f"<title>{html.escape(tip)}</title>"
    if point["kind"] != "uniform":
        return f'<circle class="mixture" cx="{x:.1f}" cy="{y:.1f}" r="4.5">{title}</circle>'
    corner = f"M{x:.1f} {y - 7:.1f} l7 7 l-7 7 l-7 -7 z"
    return f'<path class="uniform" d="{corner}">{title}</path>'


def _name(point: Mapping[str, Any], place: tuple[float, float], others: Sequence[tuple[float, float]]) -> str:
    """The recipe's name beside its mark: above, or below where another mark is in the way."""
    x, y = place
    crowded = any(0 < other - x < 90 and -34 < height - y < 10 for other, height in others)
    name = point["name"].removeprefix("uniform ")
    return (
        text(x - 6, y + 22, name, "start", "note halo") if crowded else text(x + 12, y - 7, name, "start", "note halo")
    )
