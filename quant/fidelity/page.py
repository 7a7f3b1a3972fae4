"""report.html: one file with its pictures inside, no script, no network; light and dark."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING

from motedge.quant.fidelity.figures import Figures
from motedge.quant.fidelity.plots import SHADES, chunk_map, site_map, size_bars, sqnr_limits, velocity_bars
from motedge.quant.fidelity.verdict import NOT_JUDGED, PASSED
from motedge.quant.fidelity.weights import SiteError
from motedge.quant.page.document import bullets, details, document, table, tiles
from motedge.quant.page.svg import percent
from motedge.units import format_bytes

if TYPE_CHECKING:
    from motedge.quant.fidelity.report import FidelityReport

_TOWERS = {"und_prefill": "Reasoner (und_prefill)", "gen_step": "Generator (gen_step)"}
_WORST = 10
_READING = (
    "Relative L2 is |error| / |reference|; cosine 1 and relative L2 0 are best. SQNR in dB: 20 dB is an error of 10 %, "
    "30 dB of 3.2 %, 40 dB of 1 %.",
    "Equal inputs: both generators are given what the unquantized one saw, so that one forward is compared. Own loop: "
    "each goes its own way from the same noise, and errors of earlier steps and of the prompt add up.",
    "Activations beyond the calibrated range are clipped. A range ratio well above 1 says that calibration did not see "
    "what the robot sees: calibrate on more observations.",
)


def render_page(report: FidelityReport) -> str:
    """The page of one report."""
    model = report.facts["model"]
    title = f"{report.recipe} on {model['family']} {model['variant']}: fidelity {report.verdict.status}"
    sections = [_verdict(report), _caveats(report)]
    if report.velocities:
        sections.append(_velocities(report))
    if report.chunk is not None:
        sections.append(_chunk(report))
    sections.append(_sites(report))
    if report.size:
        sections.append(_size(report))
    sections.append(_conditions(report))
    return document(title, sections)


def _verdict(report: FidelityReport) -> str:
    verdict = report.verdict
    origin = report.facts["model"]["checkpoint"].get("name", "")
    data = report.facts["data"]
    seen = f"{len(data['held_out'])} held-out observations of {data['dataset']}" if data else "no observations"
    lead = f"Checkpoint {origin}; {seen}; {report.facts['engine']}."
    entries = [
        (entry.what, percent_or(entry.relative_l2), f"relative L2; cosine {_number(entry.cosine, '.6f')}")
        for entry in verdict.deciding
    ]
    gate = f"cosine at least {verdict.min_cosine:g}, relative L2 at most {percent(verdict.max_relative_l2)}"
    words = {PASSED: "the gate is reached", NOT_JUDGED: verdict.reason or ""}.get(verdict.status, "the gate is missed")
    css = {PASSED: "good", NOT_JUDGED: "open"}.get(verdict.status, "bad")
    badge = f'<p class="verdict {css}">{html.escape(verdict.status)}</p>'
    all_tiles = [*entries, ("gate", words, gate)] if entries else [("gate", "not judged", words)]
    return f'<p class="lead">{html.escape(lead)}</p>{badge}{tiles(all_tiles)}'


def _caveats(report: FidelityReport) -> str:
    return f'<div class="caveats">{bullets(report.caveats)}</div>'


def _velocities(report: FidelityReport) -> str:
    gate = report.verdict.max_relative_l2
    keys = (
        '<p class="legend"><span class="key s0"></span>equal inputs <span class="key s1"></span>own loop; '
        "a bar a step and branch</p>"
    )
    plots = "".join(velocity_bars(report.velocities, tensor, gate) for tensor in ("vision", "action"))
    head = ("velocity", "step", "branch", "t", "equal inputs", "cosine", "SQNR", "own loop", "cosine")
    rows = [
        (
            entry.tensor,
            str(entry.step),
            entry.branch,
            f"{entry.t:.0f}",
            percent_or(entry.teacher_forced.relative_l2),
            _number(entry.teacher_forced.cosine, ".6f"),
            _decibels(entry.teacher_forced),
            percent_or(entry.free_running.relative_l2),
            _number(entry.free_running.cosine, ".6f"),
        )
        for entry in report.velocities
    ]
    kv = "" if report.und_kv is None else f"K and V of the prompts: {percent_or(report.und_kv.relative_l2)}. "
    latent = "" if report.latent is None else f"Final latent: {percent_or(report.latent.relative_l2)}."
    return f'<h2>Velocities</h2>{keys}<div class="pair">{plots}</div><p>{kv}{latent}</p>{table(head, rows)}'


def _chunk(report: FidelityReport) -> str:
    chunk = report.chunk
    if chunk is None:
        return ""
    head = ("joint", "unit", "mean |error|", "greatest |error|", "span of the reference")
    rows = [
        (joint.field, joint.unit, *(f"{v:.4g}" for v in (joint.mean_abs, joint.max_abs, joint.reference_span)))
        for joint in chunk.joints
    ]
    words = "Mean error over held-out observations; each joint on its own scale, the darkest cell is its greatest."
    return f'<h2>Action chunk</h2><p class="legend">{words}</p>{chunk_map(chunk)}{table(head, rows)}'


def _sites(report: FidelityReport) -> str:
    def weight(site: SiteError) -> float | None:
        return site.weight.sqnr_db

    def activation(site: SiteError) -> float | None:
        return None if site.activation is None else site.activation.sqnr_db

    limits = sqnr_limits([value(site) for site in report.sites for value in (weight, activation)])
    ramp = "".join(f'<span class="ramp h{number}"></span>' for number in range(SHADES))
    maps = []
    for graph, words in _TOWERS.items():
        sites = [site for site in report.sites if site.graph == graph]
        for value, name in ((weight, "weights"), (activation, "activations")):
            if any(value(site) is not None for site in sites):
                maps.append(f"<div><h3>{words}, {name}</h3>{site_map(sites, value, limits, f'{words} {name}')}</div>")
    legend = f'<p class="legend">{limits[1]:.0f} dB {ramp} {limits[0]:.0f} dB SQNR; hover for the number</p>'
    return f'<h2>Each projection</h2>{legend}<div class="maps">{"".join(maps)}</div>{_worst(report)}'


def _worst(report: FidelityReport) -> str:
    def noise(site: SiteError) -> float:
        known = [f.relative_l2 or 0.0 for f in (site.weight, site.activation) if f is not None]
        return max(known)

    worst = sorted(report.sites, key=noise, reverse=True)[:_WORST]
    head = ("noisiest projections", "graph", "scheme", "weight", "activation", "range ratio", "clipped")
    rows = [
        (
            site.site,
            site.graph,
            site.scheme,
            percent_or(site.weight.relative_l2),
            "" if site.activation is None else percent_or(site.activation.relative_l2),
            "" if site.range_ratio is None else f"{site.range_ratio:.2f}",
            "" if site.clipped is None else f"{100 * site.clipped:.3g} %",
        )
        for site in worst
    ]
    return table(head, rows)


def _size(report: FidelityReport) -> str:
    sizes = [(graph, entry["source_bytes"], entry["quantized_bytes"]) for graph, entry in report.size.items()]
    keys = '<p class="legend"><span class="key s-none"></span>unquantized <span class="key s0"></span>quantized</p>'
    latency = f"<p>Predicted latency: none; {html.escape(str(report.latency.get('why')))}.</p>"
    return f"<h2>Size of the weights</h2>{keys}{size_bars(sizes, format_bytes)}{latency}"


def _conditions(report: FidelityReport) -> str:
    text = json.dumps(report.facts, indent=2, ensure_ascii=False)
    return f"<h2>How to read this</h2>{bullets(_READING)}{details('Data and conditions', text)}"


def percent_or(value: float | None) -> str:
    """A relative error in words."""
    return "not finite" if value is None else percent(value)


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)


def _decibels(figures: Figures) -> str:
    return "no error" if figures.sqnr_db is None and not figures.non_finite else _number(figures.sqnr_db, ".1f") + " dB"
