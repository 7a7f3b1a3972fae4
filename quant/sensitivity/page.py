"""sensitivity.html: one file with its pictures inside, no script, no network; light and dark."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from motedge.bundle.model_words import model_words
from motedge.quant.page.style import STYLE
from motedge.quant.page.svg import percent
from motedge.quant.sensitivity.maps import SHADES, assignment_map, cost_limits, cost_map, scheme_class, step_bars
from motedge.quant.sensitivity.pareto import pareto_plot
from motedge.units import format_bytes

_TOWERS = {"und_prefill": "Reasoner (und_prefill)", "gen_step": "Generator (gen_step)"}


def render_page(report: Mapping[str, Any]) -> str:
    """The page of a finished search; `report` is the content of sensitivity.json."""
    model = report["model"]
    words = model_words(f"{model['family']} {model['variant']}", report.get("embodiment"))
    title = f"Sensitivity of {words}"
    sections = [_summary(report), _front(report), _assignment(report), _costs(report), _steps(report), _notes(report)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body><main><h1>{html.escape(title)}</h1>\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def _summary(report: Mapping[str, Any]) -> str:
    chosen, target = report["chosen"], report["target"]
    words = "kept, as measured" if chosen["met"] else "not kept"
    tiles = (
        ("size", f"{chosen['bits']:.3f} bits", f"{format_bytes(chosen['bytes'])} of projections; 16 bits unquantized"),
        (
            "error, measured",
            _percent(chosen["error"]),
            f"predicted {_percent(chosen['predicted'])}, {report['metric']}",
        ),
        ("held-out action chunk", _percent(chosen["held_out_chunk"]), f"{report['held_out']} observations"),
        ("target", words, target["words"]),
    )
    cells = "".join(
        f'<div class="tile"><div class="name">{html.escape(name)}</div><div class="value">{html.escape(value)}</div>'
        f'<div class="note">{html.escape(note)}</div></div>'
        for name, value, note in tiles
    )
    origin = report["model"]["checkpoint"]
    strata = ", ".join(f"{count} of step {name}" for name, count in report["forwards"].items())
    data = report["identity"].get("dataset", "")
    lead = f"Checkpoint {origin.get('name', '')}; observations of {data}; forwards measured: {strata}."
    return f'<p class="lead">{html.escape(lead)}</p><div class="tiles">{cells}</div>'


def _front(report: Mapping[str, Any]) -> str:
    points, chosen = report["points"], report["chosen"]
    bound = report["target"]["max_error"]
    left = pareto_plot(points, chosen, "error", f"relative L2, {report['metric']}, teacher-forced", bound)
    right = pareto_plot(points, chosen, "held_out_chunk", "relative L2, action chunk, held out")
    keys = (
        '<p class="legend"><span class="key mixture"></span>mixtures, measured '
        '<span class="key uniform"></span>uniform recipes <span class="key chosen"></span>chosen '
        '<span class="key dashed"></span>predicted from single projections</p>'
    )
    head = (
        "",
        "bits",
        "size",
        "schemes",
        "squares added",
        "predicted",
        "measured",
        "action",
        "vision",
        "held-out chunk",
        "latent",
    )
    rows = [
        (
            point["name"],
            f"{point['bits']:.3f}",
            format_bytes(point["bytes"]),
            ", ".join(f"{count} {name}" for name, count in point["schemes"].items()) or "none quantized",
            *(_percent(point[key]) for key in ("added", "predicted", "error", "action", "vision")),
            *(_percent(point[key]) for key in ("held_out_chunk", "held_out_latent")),
        )
        for point in sorted(points, key=lambda point: point["bytes"])
    ]
    mark = [point["name"] == chosen["name"] and point["bytes"] == chosen["bytes"] for point in points]
    order = sorted(range(len(points)), key=lambda number: points[number]["bytes"])
    table = _table(head, rows, [mark[number] for number in order])
    return f'<h2>Size against error</h2>{keys}<div class="pair">{left}{right}</div>{table}'


def _assignment(report: Mapping[str, Any]) -> str:
    order = list(report["schemes"])
    chosen = report["chosen"]["assignment"]
    used = [name for name in (*order, "none") if any(name in sites.values() for sites in chosen.values())]
    keys = "".join(f'<span class="key {scheme_class(name, order)}"></span>{html.escape(name)} ' for name in used)
    maps = "".join(
        f"<div><h3>{_TOWERS[graph]}</h3>{assignment_map(sites, chosen[graph], order)}</div>"
        for graph, sites in _by_graph(report)
    )
    return f'<h2>The chosen mixture</h2><p class="legend">{keys}</p><div class="maps">{maps}</div>'


def _costs(report: Mapping[str, Any]) -> str:
    limits = cost_limits(report["sites"])
    ramp = "".join(f'<span class="ramp h{number}"></span>' for number in range(SHADES))
    maps = "".join(
        f"<div><h3>{_TOWERS[graph]}, {html.escape(scheme)}</h3>{cost_map(sites, scheme, limits)}</div>"
        for graph, sites in _by_graph(report)
        for scheme in report["schemes"]
        if any(scheme in site["costs"] for site in sites)
    )
    return (
        "<h2>Cost of each projection alone</h2>"
        f'<p class="legend">{percent(limits[0])} {ramp} {percent(limits[1])} relative L2 ({report["metric"]}), '
        f'logarithmic; the same ramp in all maps</p><div class="maps">{maps}</div>'
    )


def _steps(report: Mapping[str, Any]) -> str:
    steps = report["steps"]
    if not steps:
        return ""
    order = list(steps)
    keys = "".join(f'<span class="key {scheme_class(name, order)}"></span>{html.escape(name)} ' for name in order)
    head = ("recipe", "step", "t", "action chunk", "latent")
    rows = [
        (name, str(entry["step"]), str(entry["t"]), _percent(entry.get("chunk")), _percent(entry.get("latent")))
        for name, entries in steps.items()
        for entry in entries
    ]
    return (
        "<h2>Cost of each denoising step alone</h2><p>The generator quantized at one step, unquantized at the others; "
        f'held-out observations.</p><p class="legend">{keys}</p><div class="pair">{step_bars(steps, order)}'
        f"{_table(head, rows, [False] * len(rows))}</div>"
    )


def _notes(report: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{html.escape(note)}</li>" for note in (*report["caveats"], *report["notes"]))
    conditions = html.escape(json.dumps(report["identity"], indent=2, ensure_ascii=False))
    details = f"<details><summary>Conditions</summary><pre>{conditions}</pre></details>"
    return f"<h2>How to read this</h2><ul>{items}</ul>{details}"


def _by_graph(report: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    return [(graph, [site for site in report["sites"] if site["graph"] == graph]) for graph in _TOWERS]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[bool]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr{' class=marked' if mark else ''}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row, mark in zip(rows, marked, strict=True)
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _percent(value: float | None) -> str:
    return "not finite" if value is None else percent(value)
