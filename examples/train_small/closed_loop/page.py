"""closed_loop.html: one file with its pictures inside, no script, no network; light and dark."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from examples.train_small.closed_loop.plots import (
    KINDS,
    LINE_M,
    OPEN_LOOP_M,
    PLAN_MS,
    SUCCESS,
    WEIGHTS_MB,
    scatter,
    short_name,
)
from examples.train_small.closed_loop.rows import EXPERT, NOMINAL, POINT, REFERENCE, STRAIGHT, UNTRAINED
from examples.train_small.drive.score import DONE
from examples.train_small.road.instructions import BEHAVIOURS
from motedge.files import atomic_open
from motedge.quant.page.document import bullets, document, table, tiles

Row = Mapping[str, Any]
# Shades of the page's style sheet, from few to many
_SHADES = 9
_HEAD = (
    *("", "succeeded", "95 %", "left", "right", "slow", "stop", "progress", "off s", "line m"),
    *("open loop m", "on the way m", "plan ms", "p99", "plans"),
)
_COLUMNS = (
    "Progress: way over the expert's. Off: longest time off the road. Line: mean distance beside the line that was "
    "told, from the third second on. Open loop, on the way: mean distance of plans from the expert's, on held-out "
    "pictures and from where the car came. Plan: median and 99th percentile of so many plans."
)


def write_page(path: Path, result: Mapping[str, Any], film: Optional[Path] = None) -> None:
    """Writes the page of a result, as benchmarks/closed_loop.py makes it, and a film (.webp) in it; whole or not."""
    with atomic_open(path, "w") as stream:
        stream.write(render_page(result, None if film is None else film.read_bytes()))


def render_page(result: Mapping[str, Any], film: Optional[bytes] = None) -> str:
    """The page."""
    rows = result["rows"]
    as_trained = [row for row in rows if row["condition"] == NOMINAL]
    return document(
        "In the closed loop: does it stay on the road, and do as it is told?",
        [
            _summary(result, as_trained),
            _film(film),
            _cost(result, as_trained),
            _errors(result, as_trained),
            _section("Recipes and operating points, as trained", as_trained),
            _section(
                "One bundle under harder conditions, and the expert",
                [row for row in rows if row["driver"] in (REFERENCE, EXPERT) and row["point"] == POINT],
                lambda row: f"{row['driver']}, {row['condition']}",
            ),
            _section(
                "Other recipes under harder conditions",
                [r for r in rows if r["driver"] not in (REFERENCE, EXPERT) and r["condition"] != NOMINAL],
                lambda row: f"{row['driver']}, {row['condition']}",
            ),
            _pairs(result),
            _confusions(as_trained),
            _conditions(result),
        ],
    )


def _summary(result: Mapping[str, Any], rows: Sequence[Row]) -> str:
    drives = sum(row["drives"] for row in result["rows"])
    shown = [row for row in rows if row["point"] == POINT]
    roads = result["roads"]
    lead = (
        f"{drives} drives of 15 s on roads that no training saw (seeds {roads['first_seed']} to "
        f"{roads['first_seed'] + roads['count'] - 1}), each told four behaviours. A drive succeeds that is off the "
        "road for at most 1 s, does as it is told in 95 % of the time after the third second, and comes 60 % as far as "
        "the expert; one that is told to stop, if it then stands."
    )
    boxes = [
        (short_name(row), f"{row['success']:.1%}", f"{row['successes']} of {row['drives']}, {_interval(row)}")
        for row in shown
    ]
    missing = "" if result["complete"] else '<p><span class="verdict open">not all rows were driven</span></p>'
    return f'<p class="lead">{html.escape(lead)}</p>{missing}{tiles(boxes)}'


def _film(film: Optional[bytes]) -> str:
    if film is None:
        return ""
    content = base64.b64encode(film).decode("ascii")
    return (
        "<h2>A drive</h2>"
        f'<p class="lead">{html.escape(REFERENCE)} at 4 steps. On the road: the plan that is driven, a point every '
        "0.1 s; its beginning green, its end orange.</p>"
        f'<img alt="a film of a drive" width="360" src="data:image/webp;base64,{content}">'
    )


def _cost(result: Mapping[str, Any], rows: Sequence[Row]) -> str:
    bundles = result["bundles"]
    weighed = [{**row, "towers_mb": bundles[row["driver"]]["towers_mb"]} for row in rows if row["driver"] in bundles]
    points = scatter([row for row in weighed if row["driver"] == REFERENCE], PLAN_MS, SUCCESS, front=True)
    recipes = scatter([row for row in weighed if row["point"] == POINT], WEIGHTS_MB, SUCCESS, front=True)
    return (
        "<h2>Success against cost</h2>"
        '<p class="lead">Operating points of one bundle by time, recipes by the weights of their towers: on a CPU '
        "every recipe computes in fp32, and a quantized one pays for unpacking besides. The line joins what nothing "
        "cheaper beats.</p>"
        f'{_keys()}<div class="pair">{points}{recipes}</div>'
    )


def _errors(result: Mapping[str, Any], rows: Sequence[Row]) -> str:
    models = [row for row in rows if row["open_loop_m"] is not None]
    cells = [
        (
            entry["over"],
            entry["error"],
            {"success": "success", "line_m": "distance beside the line"}[entry["with"]],
            str(entry["rows"]),
            "none" if entry["rho"] is None else f"{entry['rho']:.2f}",
            entry["reason"] if entry["rho"] is None else f"{entry['low']:.2f} to {entry['high']:.2f}",
        )
        for entry in result["correlations"]
    ]
    head = ("over", "error", "with", "rows", "Spearman's rho", "95 % over rows")
    trained = [row for row in models if row["driver"] not in (STRAIGHT, UNTRAINED)]
    left, right = scatter(models, OPEN_LOOP_M, SUCCESS), scatter(trained, OPEN_LOOP_M, LINE_M)
    return (
        "<h2>Does the open-loop error predict it?</h2>"
        "<p class=\"lead\">Open loop: mean distance of a plan's places from the expert's over 1.6 s, on held-out "
        "pictures. On the way: the same from wherever the car came. With success a rho of -1 says that the one with "
        "the larger error always succeeds less, with the distance beside the line 1 that it always strays more.</p>"
        f'{_keys()}<div class="pair">{left}{right}</div>' + table(head, cells)
    )


def _section(title: str, rows: Sequence[Row], name: Any = short_name) -> str:
    if not rows:
        return ""
    cells = [(name(row), *_cells(row)) for row in rows]
    return f'<h2>{html.escape(title)}</h2><p class="lead">{_COLUMNS}</p>' + table(_HEAD, cells)


def _cells(row: Row) -> list[str]:
    times, open_loop = row["plan_ms"], row["open_loop_m"]
    return [
        f"{row['successes']}/{row['drives']}",
        _interval(row),
        *(f"{done}/{of}" for done, of in (row["by_behaviour"][behaviour] for behaviour in BEHAVIOURS)),
        f"{row['progress']:.2f}",
        f"{row['off_s']:.2f}",
        f"{row['line_m']:.2f}",
        "" if open_loop is None else f"{open_loop['mean']:.3f}",
        f"{row['error_m']:.3f}",
        *(
            ("", "", "")
            if times is None
            else (f"{times['p50']:.1f}", "" if times["p99"] is None else f"{times['p99']:.1f}", str(times["count"]))
        ),
    ]


def _pairs(result: Mapping[str, Any]) -> str:
    if not result["pairs"]:
        return ""
    cells = [
        (
            pair["second"],
            pair["first"],
            str(pair["drives"]),
            f"{100 * pair['difference']:+.1f}",
            f"{100 * pair['low']:+.1f} to {100 * pair['high']:+.1f}",
            str(pair["first_only"]),
            str(pair["second_only"]),
            f"{pair['p']:.2g}",
        )
        for pair in result["pairs"]
    ]
    head = ("", "against", "drives", "points", "95 %", "only the other", "only it", "McNemar p")
    notes = [
        "The same roads, starts and noise: only drives in which one succeeded and the other not tell them apart.",
        "Intervals by drawing whole roads anew; p is exact and not corrected for how many rows are compared.",
    ]
    return "<h2>Differences on the same drives</h2>" + table(head, cells) + bullets(notes)


def _confusions(rows: Sequence[Row]) -> str:
    maps = "".join(f"<div><h3>{html.escape(short_name(row))}</h3>{_confusion(row)}</div>" for row in rows)
    return (
        "<h2>Told and driven</h2>"
        '<p class="lead">Rows: what was told. Columns: what somebody would say was driven who did not hear it.</p>'
        f'<div class="maps">{maps}</div>'
    )


def _confusion(row: Row) -> str:
    columns = [name for name in DONE if any(name in row["done"][told] for told in BEHAVIOURS) or name in BEHAVIOURS]
    top = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *columns))
    body = ""
    for told in BEHAVIOURS:
        count = sum(row["done"][told].values())
        cells = "".join(_shaded(row["done"][told].get(name, 0), count) for name in columns)
        body += f"<tr><td>{html.escape(told)}</td>{cells}</tr>"
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _shaded(drives: int, of: int) -> str:
    if not drives:
        return "<td></td>"
    # Shades beyond the middle would hide the ink
    shade = min(int(drives / of * (_SHADES // 2)), _SHADES // 2 - 1)
    return f'<td class="h{shade}">{drives}</td>'


def _conditions(result: Mapping[str, Any]) -> str:
    told = result["conditions"]
    entries = {
        "processor": f"{told['cpu']}, {told['threads']} thread of {told['usable_cores']}",
        "load before and after": f"{told['load_average']}, {told['load_average_after']}",
        "commit": f"{told['commit']}{' and uncommitted changes' if told['uncommitted_changes'] else ''}",
        "versions": ", ".join(f"{name} {value}" for name, value in {**told["versions"], **told["simulator"]}.items()),
        "date": told["date"],
        "bundles": "; ".join(
            f"{name}: {spec['recipe'] or 'no recipe'}, {spec['variant'] or 'first variant'}, "
            f"manifest {spec['manifest_sha256'][:12]}"
            + (f", quantize's gate: {spec['gate']['status']}" if spec.get("gate") else "")
            for name, spec in result["bundles"].items()
        ),
    }
    pairs = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in entries.items())
    return f'<h2>Conditions</h2><dl class="pairs">{pairs}</dl>'


def _interval(row: Row) -> str:
    low, high = row["interval"]
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _keys() -> str:
    keys = "".join(f'<span class="key {css}"></span>{html.escape(name)} ' for css, name in KINDS.items())
    return f'<p class="legend">{keys}</p>'
