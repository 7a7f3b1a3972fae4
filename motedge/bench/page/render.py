"""The page of one bench."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from motedge.bench.front_share import SURE
from motedge.bench.page.same_point import same_point_map
from motedge.bench.page.scatter import colour_of, energy_scatter, time_scatter
from motedge.bench.report import FAILED, MEASURED, joules
from motedge.bench.text import (
    energy_words,
    forwards_words,
    is_sure,
    memory_words,
    relative_words,
    shortened,
    unit_words,
)
from motedge.bench.turn_interval import ENOUGH_TURNS
from motedge.profile.conditions import bundle_words
from motedge.profile.statistics import COUNT_FOR_P90, COUNT_FOR_P99
from motedge.quant.page.document import bullets, details, document, table, tiles
from motedge.units import count_of, format_ms

_READING = (
    "A cell is one recipe at one operating point. All of them act on the same observations with the same noise: a "
    "difference of actions is the cell's own.",
    "Error: the L2 norm of the difference over that of the reference, all columns as the policy returns them. From "
    "shipped: against the reference as shipped, what the cell costs in all. At same: against the reference at the same "
    "point, what the recipe costs by itself.",
    "Other settings give other actions without being wrong: how much of an error a task can bear is not measured here.",
    "Time: warm ticks, cells in turn, the first of each turn left out; no sensor is read during any of them. Of "
    "shipped: median over that of the reference as shipped, with its 95 % interval; only of turns that both took side "
    "by side, in one session. Ticks of one turn are alike, so whole turns are drawn anew; of fewer than "
    f"{ENOUGH_TURNS} turns intervals are too narrow.",
    f"Percentiles need values above them: p90 is told from {COUNT_FOR_P90} ticks on, p99 from {COUNT_FOR_P99}.",
    "On the front: no other cell is at least as fast and as near, and better in one. Cells that are equal in both are "
    "on it together. Lines through the dots are the interval of the median and the spread over observations; "
    "one with an arrow goes on. The share "
    f"beside it: how often it is on the front when turns are drawn anew; below {100 * SURE:g} % it may be by chance.",
    "Memory is that of the recipe's own process after all of its points.",
)


def render_page(bench: Mapping[str, Any]) -> str:
    """The page, of a document of `motedge.bench.report.bench_document`."""
    sections = [
        _lead(bench),
        _tiles(bench),
        _pictures(bench),
        _cells(bench),
        _failures(bench),
        _groups(bench),
        _candidates(bench),
        _conditions(bench),
        f"<h2>How to read this</h2>{bullets(_READING)}",
    ]
    name = ", ".join(entry["name"] for entry in bench["bundles"])
    return document(f"Bench of {name}", [section for section in sections if section])


def _lead(bench: Mapping[str, Any]) -> str:
    device, seen, options = bench["device"], bench["observations"], bench["options"]
    gpus = ", ".join(gpu["name"] for gpu in device["gpus"])
    where = device["board"] or gpus or device["cpu"]
    first = bench["bundles"][0]
    words = (
        f"{bundle_words(first)}, on {where} with {bench['engine']['name']}. "
        f"{count_of(len(bench['candidates']), 'recipe')} at {count_of(len(bench['points']), 'operating point')}; "
        f"{count_of(options['repeat'], 'tick')} a cell in {count_of(options['rounds'], 'turn')}, "
        f"{count_of(seen['count'], 'observation')} ({seen['kind']})."
    )
    state, css = ("complete", "good") if bench["complete"] else ("incomplete", "bad")
    stopped = "" if bench["complete"] else f'<p class="caveats">{html.escape(str(bench["stopped"]))}</p>'
    return f'<p class="lead">{html.escape(words)}</p><p class="verdict {css}">{state}</p>{stopped}'


def _tiles(bench: Mapping[str, Any]) -> str:
    cells = [cell for cell in bench["cells"] if cell["status"] == MEASURED]
    entries = []
    shipped = bench["cells"][0]
    if shipped["status"] == MEASURED:
        latency = shipped["latency_ms"]
        entries.append(
            ("the reference as shipped", format_ms(latency["p50"]), f"median of {count_of(latency['count'], 'tick')}")
        )
    front = [cell for cell in cells if cell["front"]["time"]]
    if front:
        fastest = min(front, key=lambda cell: cell["latency_ms"]["p50"])
        note = f"{fastest['id']}: error {_error(fastest)}"
        entries.append(("the fastest", format_ms(fastest["latency_ms"]["p50"]), note))
    gained = [cell for cell in front if (cell["from_shipped"]["relative_l2"] or 0.0) > 0 and _ratio(cell) < 1]
    if gained:
        nearest = min(gained, key=lambda cell: cell["from_shipped"]["relative_l2"])
        note = f"{_ratio(nearest):.3g} of shipped; {nearest['id']}: error {_error(nearest)}"
        entries.append(("the nearest that is faster", format_ms(nearest["latency_ms"]["p50"]), note))
    told = [cell for cell in cells if joules(cell) is not None]
    if told:
        least = min(told, key=lambda cell: joules(cell) or 0.0)
        entries.append(("the least energy a chunk", f"{joules(least):.3g} J", least["id"]))
    else:
        entries.append(("energy a chunk", "not known", str(bench["energy_absent"] or "not measured yet")))
    count = f"{len(cells)} of {len(bench['cells'])}"
    failed = sum(cell["status"] == FAILED for cell in bench["cells"])
    entries.append(("cells measured", count, f"{failed} failed" if failed else "none failed"))
    return tiles(entries)


def _pictures(bench: Mapping[str, Any]) -> str:
    time, energy, same = time_scatter(bench), energy_scatter(bench), same_point_map(bench)
    keys = "".join(
        f'<span class="key {colour_of(bench, entry["name"])}"></span>{html.escape(entry["name"])} '
        for entry in bench["candidates"]
    ).rstrip()
    legend = f'<p class="legend">{keys} &emsp;large dots: on the front, smaller where that may be chance</p>'
    found = "<h2>Error against time</h2>"
    found += f"{legend}<div class=scroll>{time}</div>" if time else "<p>No cell is measured whole yet.</p>"
    if energy:
        found += f"<h2>Error against energy</h2>{legend}<div class=scroll>{energy}</div>"
    if same:
        found += f"<h2>What the recipe costs by itself</h2><div class=scroll>{same}</div>"
    return found


def _cells(bench: Mapping[str, Any]) -> str:
    energy = any(joules(cell) is not None for cell in bench["cells"])
    planned = any(cell["predicted"].get("predicted_ms") is not None for cell in bench["cells"])
    head = ["cell", "front", "forwards", "p50", "95 %", "p90", "p99", "of shipped", "95 %"]
    head += ["energy"] if energy else []
    head += ["from shipped", "at same", "first tick"] + (["planned"] if planned else []) + ["ticks"]
    rows = []
    for cell in bench["cells"]:
        latency, ratio = cell["latency_ms"] or {}, cell["of_reference"]
        row = [
            cell["id"] if cell["status"] == MEASURED else f"{cell['id']} ({cell['status']})",
            _front(cell),
            forwards_words(cell),
            _ms(latency.get("p50")),
            _span(cell["median_interval"]),
            _ms(latency.get("p90")),
            _ms(latency.get("p99")),
            "-" if ratio is None else f"{ratio['ratio']:.3f}",
            _span(ratio),
        ]
        told = joules(cell)
        row += (["-" if told is None else f"{told:.3g} J"]) if energy else []
        row += [relative_words(cell["from_shipped"]), relative_words(cell["from_same_point"]), _ms(cell["first_ms"])]
        row += [_ms(cell["predicted"].get("predicted_ms"))] if planned else []
        rows.append((*row, str(latency.get("count", 0))))
    marks = [is_sure(cell) for cell in bench["cells"]]
    return f"<h2>Cells</h2>{table(head, rows, marks)}"


def _failures(bench: Mapping[str, Any]) -> str:
    found: dict[str, list[str]] = {}
    for cell in bench["cells"]:
        if cell["status"] == FAILED:
            found.setdefault(cell["error"], []).append(cell["id"])
    if not found:
        return ""
    return "<h2>What failed</h2>" + "".join(
        details(f"{shortened(cells)}: {error.splitlines()[0]}", error + "\n\n" + "\n".join(cells))
        for error, cells in found.items()
    )


def _groups(bench: Mapping[str, Any]) -> str:
    """Errors in the actions' own units."""
    told = [cell for cell in bench["cells"] if cell["from_shipped"] is not None]
    if not told:
        return ""
    units = [unit_words(group) or "no unit" for group in told[0]["from_shipped"]["groups"]]
    head = ["cell"]
    for unit in units:
        head += [f"RMS, {unit}", "greatest", "at same: RMS", "greatest"]
    rows = []
    for cell in told:
        row = [cell["id"]]
        for number, group in enumerate(cell["from_shipped"]["groups"]):
            same = None if cell["from_same_point"] is None else cell["from_same_point"]["groups"][number]
            row += [f"{group['rms']:.4g}", f"{group['max']:.4g}"]
            row += ["-", "-"] if same is None else [f"{same['rms']:.4g}", f"{same['max']:.4g}"]
        rows.append(row)
    spans = ", ".join(map(_span_words, told[0]["from_shipped"]["groups"]))
    return f"<h2>Errors in the actions' own units</h2><p>{html.escape(spans)}.</p>{table(head, rows)}"


def _span_words(group: Mapping[str, Any]) -> str:
    names = ", ".join(group["fields"][:8]) + (" …" if len(group["fields"]) > 8 else "")
    unit = unit_words(group) or "no unit"
    return f"{names} ({unit}): up to {group['reference_span']:.3g} within a chunk of the reference"


def _candidates(bench: Mapping[str, Any]) -> str:
    rows = []
    for entry in bench["candidates"]:
        loads = ", ".join(f"{seconds:.3g} s" for seconds in entry["load_s"]) or "-"
        rows.append(
            (entry["name"], entry["bundle"], entry["variant"] or "the engine's choice", loads, memory_words(entry))
        )
    return f"<h2>Recipes</h2>{table(('recipe', 'bundle', 'variant', 'loading', 'memory'), rows)}"


def _conditions(bench: Mapping[str, Any]) -> str:
    device = bench["device"]
    pairs = [
        ("processor", f"{device['cpu']}, {count_of(device['usable_cores'], 'core')}"),
        ("GPU", ", ".join(gpu["name"] for gpu in device["gpus"]) or "none"),
        ("power mode", device["power_mode"] or "not told"),
        *([("energy", words)] if (words := energy_words(bench)) else []),
        ("versions", ", ".join(f"{name} {version}" for name, version in bench["versions"].items())),
        ("bundles", "; ".join(f"{entry['name']} {entry['manifest_sha256'][:12]}" for entry in bench["bundles"])),
        ("options", ", ".join(f"{name} {value}" for name, value in bench["options"].items())),
        ("sensors absent", "; ".join(f"{name}: {why}" for name, why in _absent(bench).items()) or "none"),
        ("sessions", "; ".join(f"{entry['time']} (load {entry['load_average']})" for entry in bench["sessions"])),
    ]
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>" for name, value in pairs)
    notes = bullets(list(bench["notes"])) if bench["notes"] else ""
    return f'<h2>Conditions</h2><dl class="pairs">{rows}</dl>{notes}'


def _absent(bench: Mapping[str, Any]) -> dict[str, str]:
    return dict(bench["sessions"][-1]["absent"]) if bench["sessions"] else {}


def _front(cell: Mapping[str, Any]) -> str:
    names = [name for name in ("time", "energy") if cell["front"][name]]
    share = cell["front"]["time_share"]
    return ", ".join(names) + ("" if share is None or not cell["front"]["time"] else f" ({100 * share:.0f} %)")


def _ratio(cell: Mapping[str, Any]) -> float:
    return 1.0 if cell["of_reference"] is None else float(cell["of_reference"]["ratio"])


def _error(cell: Mapping[str, Any]) -> str:
    """On one line: its unit does not stand alone on the next."""
    return relative_words(cell["from_shipped"]).replace(" ", "\N{NO-BREAK SPACE}")


def _span(interval: Any) -> str:
    return "-" if interval is None else f"{interval['low']:.3g} to {interval['high']:.3g}"


def _ms(value: Any) -> str:
    return "-" if value is None else format_ms(value)
