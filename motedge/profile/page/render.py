"""The page of one profile."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from motedge.profile.conditions import bundle_words
from motedge.profile.page.anatomy import step_bars, tick_bars
from motedge.profile.page.courses import PHASE_COLOURS, chosen_series, sensor_course, share_course, tick_course
from motedge.profile.page.limits import roofline_bars
from motedge.profile.page.stage_colours import DEVICE_LEGEND, LEGEND
from motedge.profile.sensors.sensor import CLOCK_MHZ, LOAD_PERCENT, POWER_W, TEMPERATURE_C
from motedge.profile.stages import GPU, is_sum
from motedge.profile.statistics import COUNT_FOR_P90, COUNT_FOR_P99
from motedge.quant.page.document import bullets, document, table, tiles
from motedge.units import format_bytes, format_ms

_UNITS = ((POWER_W, "Power", "W"), (CLOCK_MHZ, "Clocks", "MHz"), (TEMPERATURE_C, "Temperatures", "°C"),
          (LOAD_PERCENT, "Load", "%"))  # fmt: skip
_READING = (
    "Warm ticks follow warm-up; no sensor is read during any of them. New-prompt ticks bring other words of about the "
    "same length; the first tick pays for prompts, buffers and what libraries do once. A GPU tells its steps in ticks "
    "of their own, launched piece by piece, whose sum is a little more than that of a warm tick. Energy is "
    "taken over ticks of their own too, during which sensors are read.",
    f"Percentiles need values above them: p90 is told from {COUNT_FOR_P90} ticks on, p99 from {COUNT_FOR_P99}.",
    "Host: the part of a tick that no engine has; on a GPU, the tick without the time that the GPU's clock measured.",
    "At best: every nominal rate of the device reached in full. Planned: what motedge plan expects of good software.",
    "What a tick does for the task is not measured here.",
)


def render_page(profile: Mapping[str, Any]) -> str:
    """The page, of a document of `motedge.profile.report.profile_document`."""
    name = html.escape(str(profile["bundle"]["name"]))
    sections = [
        _lead(profile),
        _tiles(profile),
        _anatomy(profile),
        _ticks(profile),
        _stages(profile),
        _graphs(profile),
        _energy(profile),
        _sensors(profile),
        _conditions(profile),
        f"<h2>How to read this</h2>{bullets(_READING)}",
    ]
    return document(f"Profile of {name}", [section for section in sections if section])


def _lead(profile: Mapping[str, Any]) -> str:
    bundle, engine, device, chunk = (profile[name] for name in ("bundle", "engine", "device", "chunk"))
    gpus = ", ".join(gpu["name"] for gpu in device["gpus"])
    where = device["board"] or gpus or device["cpu"]
    variants = ", ".join(sorted(set(engine["variants"].values())))
    words = [
        f"{bundle_words(bundle)}, on {where}",
        f"{engine['name']}, {variants}" + (f", recipe {engine['recipe']}" if engine.get("recipe") else ""),
    ]
    if chunk:
        words.append(f"{chunk.get('steps')} steps, {chunk.get('forwards')} forwards")
    state, css = ("complete", "good") if profile["complete"] else ("incomplete", "bad")
    stopped = "" if profile["complete"] else f'<p class="caveats">{html.escape(str(profile["stopped"]))}</p>'
    moment = str(profile["time"]).replace("T", " ").replace("+00:00", " UTC")
    lead = f"{'; '.join(words)}. Taken {moment}."
    return f'<p class="lead">{html.escape(lead)}</p><p class="verdict {css}">{state}</p>{stopped}'


def _tiles(profile: Mapping[str, Any]) -> str:
    summary, energy, memory = profile["summary"], profile["energy"], profile["memory"]
    tick = summary["tick"]
    entries: list[tuple[str, str, str]] = []
    if tick is not None:
        known = [f"{name} {format_ms(tick[name])}" for name in ("p90", "p99", "max") if tick[name] is not None]
        entries.append(("tick, warm, p50", format_ms(tick["p50"]), ", ".join(known)))
        if summary["share_of_chunk"] is not None:
            share = f"{100 * summary['share_of_chunk']:.3g} %"
            entries.append(("of the time a chunk lasts", share, f"{summary['chunks_per_s']:.3g} chunks/s one by one"))
        host = f"{100 * summary['host_ms'] / tick['p50']:.2g} % of the tick" if tick["p50"] else ""
        entries.append(("host, outside engines", format_ms(summary["host_ms"]), host))
    if summary["first_ms"] is not None:
        renewed = summary["new_prompt_ms"]
        note = "" if renewed is None else f"a new prompt: {format_ms(renewed)}"
        entries.append(("first tick", format_ms(summary["first_ms"]), note))
    if energy is not None and energy["per_chunk_j"] is not None:
        note = f"at {energy['power_w']:.3g} W: {', '.join(energy['counted'])}"
        entries.append(("energy a chunk", f"{energy['per_chunk_j']:.3g} J", note))
    else:
        entries.append(("energy a chunk", "not known", "no sensor here tells of power"))
    if memory["resident_bytes"] is not None:
        gpu = sum(memory["gpu_bytes"].values())
        note = f"and {format_bytes(gpu)} of the GPU" if gpu else "of the host"
        entries.append(("memory", format_bytes(memory["resident_bytes"]), note))
    if profile["deadline"] is not None:
        missed = profile["deadline"]
        entries.append(
            (f"deadline of {missed['limit']:g} ms", f"{missed['missed']} missed", f"of {missed['count']} ticks")
        )
    return tiles(entries)


def _anatomy(profile: Mapping[str, Any]) -> str:
    bars = tick_bars(profile["stages"])
    if not bars:
        return "<h2>Where a tick goes</h2><p>No tick was measured.</p>"
    on_device = any(name.startswith(GPU) for name in profile["stages"])
    legend = _legend(DEVICE_LEGEND if on_device else LEGEND)
    found = f"<h2>Where a tick goes</h2>{legend}<div class=scroll>{bars}</div>"
    steps = step_bars(profile["stages"])
    if steps:
        parts = ("forward with the prompt", "forward without", "guidance and solver")
        legend = _legend({name: LEGEND[name] for name in parts}, "bars: median; whiskers: least to greatest")
        found += f"<h3>Denoising steps, warm</h3>{legend}<div class=scroll>{steps}</div>"
    return found


def _ticks(profile: Mapping[str, Any]) -> str:
    course, shares = tick_course(profile), share_course(profile)
    if not course:
        return ""
    seen = set(profile["samples"]["phase"])
    legend = _legend({phase: css for phase, css in PHASE_COLOURS.items() if phase in seen})
    found = f"<h2>Tick by tick</h2>{legend}<div class=scroll>{course}</div>"
    if shares:
        found += f"<h3>Share of warm ticks that took at most so long</h3><div class=scroll>{shares}</div>"
    return found + bullets(_unsteadiness(profile))


def _unsteadiness(profile: Mapping[str, Any]) -> list[str]:
    jitter = profile["jitter"]
    if jitter is None:
        return []
    latency = jitter["latency_ms"]
    tail = "" if latency["tail"] is None else f", p99 {format_ms(latency['tail'])} above p50"
    found = [
        f"Jitter: {format_ms(latency['step_mean'])} from one tick to the next on average, "
        f"{format_ms(latency['spread'])} from the shortest to the longest{tail}."
    ]
    if "rate_hz" in jitter:
        found.append(
            f"At {jitter['rate_hz']:g} Hz {jitter['late_starts']} ticks began late, the latest by "
            f"{format_ms(jitter['latest_start_ms'])}."
        )
    return found


def _stages(profile: Mapping[str, Any]) -> str:
    if not profile["stages"]:
        return ""
    head = ("stage, ms", "first", "new prompt", "p50", "p90", "p99", "max", "mean", "std", "ticks")
    rows, marked = [], []
    for name, phases in profile["stages"].items():
        warm = phases.get("warm") or phases.get("step by step") or {}
        cells = [_ms((phases.get(phase) or {}).get("p50")) for phase in ("first", "new prompt")]
        cells += [_ms(warm.get(key)) for key in ("p50", "p90", "p99", "max", "mean", "std")]
        rows.append((name, *cells, str(warm.get("count", "-"))))
        marked.append(is_sum(name))
    return f"<h2>Stages</h2>{table(head, rows, marked)}"


def _graphs(profile: Mapping[str, Any]) -> str:
    roofline = profile["roofline"]
    if roofline is None or not roofline["graphs"]:
        why = "" if roofline is None else f"<p>Not known: {html.escape(str(roofline['why']))}.</p>"
        return f"<h2>Graphs and what the device could do</h2>{why}" if why else ""
    legend = _legend({"measured": "s0", "planned, with its error": "h2", "at best": "s5"})
    picture = roofline_bars(roofline)
    drawn = f"{legend}<div class=scroll>{picture}</div>" if picture else ""
    head = ("graph", "variant", "a run", "TFLOP/s", "GB/s", "at best", "reached", "planned")
    rows = [
        (
            name,
            str(entry["variant"]),
            format_ms(entry["measured_ms"]),
            f"{entry['tflops']:.3g}",
            f"{entry['gbps']:.3g}",
            "-" if entry["bound_ms"] is None else format_ms(entry["bound_ms"]),
            "-" if entry["fraction"] is None else f"{100 * entry['fraction']:.3g} %",
            "-" if entry["predicted_ms"] is None else format_ms(entry["predicted_ms"]),
        )
        for name, entry in roofline["graphs"].items()
    ]
    why = f'<p class="caveats">No roofline: {html.escape(roofline["why"])}.</p>' if roofline["why"] else ""
    return f"<h2>Graphs and what the device could do</h2>{drawn}{table(head, rows)}{why}"


def _energy(profile: Mapping[str, Any]) -> str:
    energy = profile["energy"]
    if energy is None:
        return ""
    head = ("channel", "from", "power", "at rest", "a chunk", "readings")
    rows = [
        (
            name,
            entry["source"],
            f"{entry['power_w']:.4g} W",
            "-" if entry["idle_w"] is None else f"{entry['idle_w']:.4g} W",
            f"{entry['per_chunk_j']:.4g} J",
            str(entry["readings"]),
        )
        for name, entry in energy["channels"].items()
    ]
    marked = [name in energy["counted"] for name in energy["channels"]]
    above = energy["above_idle_j"]
    words = f"Over {energy['chunks']} chunks in {energy['seconds']:.3g} s. Marked: what is added up to the whole" + (
        "." if above is None else f"; {above:.3g} J a chunk above rest with the policy loaded."
    )
    return f"<h2>Energy</h2><p>{html.escape(words)}</p>{table(head, rows, marked)}"


def _sensors(profile: Mapping[str, Any]) -> str:
    found = ""
    for kind, title, unit in _UNITS:
        names, left_out = chosen_series(profile, kind)
        if not names:
            continue
        series = profile["sensors"]["series"]
        keys = {f"{series[name]['sensor']} {series[name]['name']}": f"s{place}" for place, name in enumerate(names)}
        course = sensor_course(profile, names, unit)
        found += f"<h3>{title}</h3>{_legend(keys, left_out)}<div class=scroll>{course}</div>"
    absent = [f"{name}: {why}" for name, why in profile["sensors"]["absent"].items()]
    throttling = profile["throttling"]
    seen = [f"{name}: {value:g}" for name, value in throttling["seen"].items()]
    said = "; ".join(seen) or ("none seen" if throttling["known"] else "no sensor tells of it")
    found += f"<p>Throttling: {html.escape(said)}.</p>"
    if absent:
        found += f'<h3>Not there</h3><div class="caveats">{bullets(absent)}</div>'
    return f"<h2>Sensors</h2>{found}"


def _conditions(profile: Mapping[str, Any]) -> str:
    device, bundle = profile["device"], profile["bundle"]
    rows = [
        ("machine", f"{device['cpu']}, {device['usable_cores']} of {device['cores']} cores, {device['system']}"),
        ("GPU", ", ".join(f"{gpu['name']}, driver {gpu['driver']}" for gpu in device["gpus"]) or "none"),
        ("power mode", device["power_mode"] or "not known"),
        ("bundle", f"{bundle['name']}, manifest {bundle['manifest_sha256'][:16]}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in profile["versions"].items())),
        ("instruction", profile["observation"]["instruction"]),
        ("prompt", f"{profile['chunk'].get('und_len')} tokens"),
        ("launch", str(profile["chunk"].get("launch", "host"))),
        ("loading", "-" if profile["load_s"] is None else f"{profile['load_s']:.3g} s"),
    ]
    for sensor, facts in profile["sensors"]["present"].items():
        rows += [(f"{sensor}: {name}", value) for name, value in facts.items()]
    ledger = [(f"GPU memory: {name}", format_bytes(size)) for name, size in profile["memory"]["gpu_bytes"].items()]
    notes = bullets(profile["notes"]) if profile["notes"] else ""
    return f"<h2>Conditions</h2>{_pairs([*rows, *ledger])}{notes}"


def _pairs(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>" for name, value in rows)
    return f'<dl class="pairs">{cells}</dl>'


def _legend(keys: Mapping[str, str], more: Optional[str] = None) -> str:
    spans: Iterable[str] = (f'<span class="key {css}"></span>{html.escape(name)} ' for name, css in keys.items())
    words = f" <span>({html.escape(more)})</span>" if more else ""
    return f'<p class="legend">{"".join(spans)}{words}</p>'


def _ms(value: Optional[float]) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.4f}"
