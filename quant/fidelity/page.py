"""report.html: one file with its pictures inside, no script, no network; light and dark."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from motedge.bundle.model_words import model_words
from motedge.quant.fidelity.figures import Figures
from motedge.quant.fidelity.plots import (
    SHADES,
    chunk_map,
    joint_bars,
    row_bars,
    site_map,
    size_bars,
    sqnr_limits,
    velocity_bars,
)
from motedge.quant.fidelity.provenance import provenance
from motedge.quant.fidelity.verdict import NOT_JUDGED, PASSED
from motedge.quant.fidelity.weights import SiteError
from motedge.quant.fidelity.words import NOT_FINITE, decibels, number, relative
from motedge.quant.page.document import bullets, document, table, tiles
from motedge.quant.page.svg import percent
from motedge.units import format_bytes, format_ms

if TYPE_CHECKING:
    from motedge.quant.fidelity.report import FidelityReport

_TOWERS = {
    "und_prefill": "Reasoner (und_prefill)",
    "gen_step": "Generator (gen_step)",
    "und": "Reasoner's words (und)",
    "vision_encoder": "Vision encoder",
}
_WORST = 10
_BROKEN = f' <span class="key s5"></span>{NOT_FINITE}'
# One of two columns, which scrolls rather than pushes the other below it
_HALF = '<div style="min-width:0">'
_READING = (
    "Relative L2 is |error| / |reference|; cosine 1 and relative L2 0 are best. SQNR in dB: 20 dB is an error of 10 %, "
    "30 dB of 3.2 %, 40 dB of 1 %.",
    "Equal inputs: both generators are given what the unquantized one saw, so that one forward is compared. Own loop: "
    "each goes its own way from the same noise, and errors of earlier steps and of the prompt add up.",
    "The gate looks at the action chunk, the generated frames of the final latent and the worst velocity at equal "
    "inputs; each must reach it. A value that is NaN or infinite never does.",
    "Activations beyond the calibrated range are clipped. A range ratio well above 1 says that calibration did not see "
    "what the robot sees: calibrate on more observations.",
    "A weight's error is that of the weight alone, an activation's that of the input alone; a projection has both.",
)


def render_page(report: FidelityReport) -> str:
    """The page of one report."""
    model = report.facts["model"]
    words = model_words(f"{model['family']} {model['variant']}", report.facts.get("embodiment"))
    title = f"{report.recipe} on {words}: fidelity {report.verdict.status}"
    sections = [_verdict(report), _caveats(report)]
    if report.velocities:
        sections.append(_velocities(report))
    sections += [_chunk(report), _sites(report), _size(report)]
    sections += [f"<h2>How to read this</h2>{bullets(_READING)}", provenance(report)]
    return document(title, sections)


def _verdict(report: FidelityReport) -> str:
    verdict = report.verdict
    origin = report.facts["model"]["checkpoint"].get("name", "")
    data = report.facts["data"] or {}
    count = len(data.get("held_out", ()))
    name = (data.get("measured_on") or data).get("dataset")
    seen = f"{count} held-out observation{'s' * (count != 1)} of {name}" if count else "no held-out observations"
    lead = f"Checkpoint {origin}; {seen}; {report.facts['engine']}."
    entries = [
        (f"{entry.what}: {'passed' if entry.passed else 'failed'}", relative(entry.relative_l2), _beside(entry.cosine))
        for entry in verdict.deciding
    ]
    gate = f"cosine at least {verdict.min_cosine:g}, relative L2 at most {percent(verdict.max_relative_l2)}"
    words = {PASSED: "reached", NOT_JUDGED: "not judged"}.get(verdict.status, "missed")
    css = {PASSED: "good", NOT_JUDGED: "open"}.get(verdict.status, "bad")
    badge = f'<p class="verdict {css}">{html.escape(verdict.status)}</p>'
    note = gate if verdict.reason is None else f"{verdict.reason}; gate: {gate}"
    return f'<p class="lead">{html.escape(lead)}</p>{badge}{tiles([*entries, ("gate", words, note)])}'


def _beside(cosine: float | None) -> str:
    return f"relative L2; cosine {number(cosine, '.6f')}"


def _caveats(report: FidelityReport) -> str:
    return f'<div class="caveats">{bullets(report.caveats)}</div>'


def _velocities(report: FidelityReport) -> str:
    gate = report.verdict.max_relative_l2
    broken = any(f.non_finite for entry in report.velocities for f in (entry.teacher_forced, entry.free_running))
    keys = (
        '<p class="legend"><span class="key s0"></span>equal inputs <span class="key s1"></span>own loop; '
        f"a pair of bars for each step and branch{_BROKEN if broken else ''}</p>"
    )
    plots = "".join(velocity_bars(report.velocities, tensor, gate) for tensor in ("vision", "action"))
    head = ("step, branch", "equal inputs", "cosine", "SQNR", "own loop", "cosine", "SQNR")
    tables = []
    for tensor in ("vision", "action"):
        rows = [
            (
                f"{entry.step} {entry.branch.removesuffix('itional')}.",
                *_three(entry.teacher_forced),
                *_three(entry.free_running),
            )
            for entry in report.velocities
            if entry.tensor == tensor
        ]
        tables.append(f"{_HALF}<h3>{tensor} velocity</h3>{table(head, rows)}</div>")
    rest = [("und K and V of the prompts", report.und_kv), ("final latent, generated frames", report.latent)]
    sums = [(name, *_three(figures)) for name, figures in rest if figures is not None]
    ends = table(("what comes before and after", "relative L2", "cosine", "SQNR"), sums)
    return f'<h2>Velocities</h2>{keys}<div class="pair">{plots}</div><div class="pair">{"".join(tables)}</div>{ends}'


def _three(figures: Figures) -> tuple[str, str, str]:
    return relative(figures.relative_l2), number(figures.cosine, ".5f"), decibels(figures)


def _chunk(report: FidelityReport) -> str:
    chunk = report.chunk
    if chunk is None:
        return ""
    head = ("channel", "unit", "mean", "greatest", "span of reference")
    rows = [
        (joint.field, joint.unit, number(joint.mean_abs, "#.3g"), number(joint.max_abs, "#.3g"), span)
        for joint in chunk.joints
        for span in [f"{joint.reference_span:#.3g}"]
    ]
    keys = (
        '<p class="legend"><span class="key s0"></span>mean <span class="key s1"></span>greatest, over held-out '
        "observations</p>"
    )
    units = list(dict.fromkeys(joint.unit for joint in chunk.joints))
    by_row = "".join(f"{_HALF}<h3>By action row, {html.escape(u)}</h3>{row_bars(chunk, u)}</div>" for u in units)
    words = "Mean error; each channel on its own scale, the strongest cell is its greatest."
    cells = f'<div class="scroll"><div style="min-width:720px">{chunk_map(chunk)}</div></div>'
    overall = ", ".join(("relative L2 " + relative(chunk.overall.relative_l2), decibels(chunk.overall)))
    return (
        f"<h2>Action chunk</h2><p>All channels and rows together: {overall}.</p>{keys}"
        f'<div class="pair">{_HALF}<h3>By channel</h3>{joint_bars(chunk)}</div>{_HALF}{table(head, rows)}</div></div>'
        f'<div class="pair">{by_row}</div><h3>By channel and row</h3><p class="legend">{words}</p>{cells}'
    )


def _sites(report: FidelityReport) -> str:
    def weight(site: SiteError) -> Figures | None:
        return site.weight

    def activation(site: SiteError) -> Figures | None:
        return site.activation

    parts = ((weight, "weights"), (activation, "activations"))
    limits = sqnr_limits([value(site) for site in report.sites for value, _ in parts])
    ramp = "".join(f'<span class="ramp h{shade}"></span>' for shade in range(SHADES))
    maps = ""
    for graph, words in _TOWERS.items():
        sites = [site for site in report.sites if site.graph == graph]
        shown = [(value, name) for value, name in parts if any(value(site) is not None for site in sites)]
        drawn = [f"<div><h3>{words}, {n}</h3>{site_map(sites, v, limits, f'{words} {n}')}</div>" for v, n in shown]
        maps += f'<div class="maps">{"".join(drawn)}</div>' if drawn else ""
    if not maps:
        return "<h2>Each projection</h2><p>Nothing is quantized.</p>"
    legend = f'<p class="legend">{limits[1]:.0f} dB {ramp} {limits[0]:.0f} dB SQNR; hover for the number</p>'
    return f"<h2>Each projection</h2>{legend}{maps}{_worst(report)}"


def _worst(report: FidelityReport) -> str:
    def noise(site: SiteError) -> float:
        known = [f.relative_l2 for f in (site.weight, site.activation) if f is not None]
        return max(float("inf") if value is None else value for value in known)

    worst = sorted(report.sites, key=noise, reverse=True)[:_WORST]
    head = ("noisiest projections", "graph", "scheme", "bits", "weight", "SQNR", "activation", "SQNR", "range ratio")
    rows = [
        (
            site.site,
            site.graph,
            site.scheme,
            f"{site.weight_bits:g}",
            relative(site.weight.relative_l2),
            decibels(site.weight),
            "" if site.activation is None else relative(site.activation.relative_l2),
            decibels(site.activation),
            "" if site.range_ratio is None else f"{site.range_ratio:.2f}",
            "" if site.clipped is None else f"{100 * site.clipped:.2g} %",
        )
        for site in worst
    ]
    return table((*head, "clipped"), rows)


def _size(report: FidelityReport) -> str:
    latency = f"<p>{_latency(report.latency)}</p>"
    if not report.size:
        return f"<h2>Size and time</h2><p>No quantized weight files were written.</p>{latency}"
    sizes = [(graph, entry["source_bytes"], entry["quantized_bytes"]) for graph, entry in report.size.items()]
    keys = '<p class="legend"><span class="key s-none"></span>unquantized <span class="key s0"></span>quantized</p>'
    before, after = sum(source for _, source, _ in sizes), sum(quantized for _, _, quantized in sizes)
    whole = f"<p>Weights of these graphs: {format_bytes(before)} before, {format_bytes(after)} after"
    share = f", {100 * after / before:.1f} %.</p>" if before else ".</p>"
    return f"<h2>Size and time</h2>{keys}{size_bars(sizes, format_bytes)}{whole}{share}{latency}"


def _latency(latency: Mapping[str, Any]) -> str:
    if latency.get("predicted_ms") is None:
        return f"Predicted latency: none; {html.escape(str(latency.get('why')))}."
    low, high = (format_ms(latency[name]) for name in ("low_ms", "high_ms"))
    return (
        f"Predicted tick on {html.escape(str(latency['target']))}: {format_ms(latency['predicted_ms'])} "
        f"({low} to {high}), unquantized {format_ms(latency['unquantized_ms'])}; predicted from published figures of "
        "other software, not measured."
    )
