"""A profile as lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from motedge.profile.conditions import bundle_words
from motedge.profile.stages import is_sum
from motedge.profile.statistics import COUNT_FOR_P90, COUNT_FOR_P99
from motedge.units import count_of, format_bytes, format_ms

_WIDTH = 24


def profile_lines(document: Mapping[str, Any]) -> list[str]:
    """The lines: what and where, the table of stages, then what else is known."""
    lines = [*_head(document), "", *_stage_table(document), ""]
    for part in (_rates, _unsteadiness, _deadline, _roofline, _memory, _energy, _machine):
        lines += part(document)
    lines += [f"note         {note}" for note in document["notes"]]
    return lines


def _head(document: Mapping[str, Any]) -> list[str]:
    bundle, engine, device, chunk = (document[name] for name in ("bundle", "engine", "device", "chunk"))
    gpus = ", ".join(gpu["name"] for gpu in device["gpus"])
    where = device["board"] or gpus or device["cpu"]
    variants = ", ".join(sorted(set(engine["variants"].values())))
    lines = [
        f"bundle       {bundle['name']}: {bundle_words(bundle)}",
        f"engine       {engine['name']}, {variants}" + (f", recipe {engine['recipe']}" if engine.get("recipe") else ""),
        f"device       {where}, {count_of(device['usable_cores'], 'core')}"
        + (f", target {device['target']}" if device["target"] else "")
        + (f", power mode {device['power_mode']}" if device["power_mode"] else ""),
    ]
    if chunk:
        launch = chunk.get("launch", "host")
        lines.append(
            f"sampler      {chunk.get('steps')} steps, {chunk.get('forwards')} forwards, {chunk.get('und_len')} prompt "
            f"tokens" + ("" if launch == "host" else f"; {launch}")
        )
    if not document["complete"]:
        lines.append(f"INCOMPLETE   {document['stopped']}")
    return lines


def _stage_table(document: Mapping[str, Any]) -> list[str]:
    tick = document["stages"].get("tick", {})
    if not tick:
        return ["no tick was measured"]
    count = tick["warm"]["count"] if "warm" in tick else 0
    lines = [
        f"{'ms':<{_WIDTH}}{'first':>10}{'new prompt':>12}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}   "
        f"warm: {count_of(count, 'tick')}"
    ]
    for name, phases in document["stages"].items():
        warm, first, renewed = (phases.get(phase) for phase in ("warm", "first", "new prompt"))
        # A GPU tells its steps in ticks of their own
        warm = warm or phases.get("step by step")
        cells = [
            _ms(first and first["p50"]),
            _ms(renewed and renewed["p50"]),
            *(_ms(warm and warm[key]) for key in ("p50", "p90", "p99", "max")),
        ]
        label = f"= {name}" if is_sum(name) else f"  {name}"
        widths = (10, 12, 10, 10, 10, 10)
        lines.append(f"{label:<{_WIDTH}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths)))
    if 0 < count < COUNT_FOR_P99:
        least = COUNT_FOR_P90 if count < COUNT_FOR_P90 else COUNT_FOR_P99
        lines.append(f"p{90 if count < COUNT_FOR_P90 else 99} is told from {least} ticks on")
    return lines


def _rates(document: Mapping[str, Any]) -> list[str]:
    summary = document["summary"]
    if summary["tick"] is None:
        return []
    lines = [f"throughput   {summary['chunks_per_s']:.4g} chunks/s"]
    if summary["actions_per_s"]:
        lines[0] += (
            f", {summary['actions_per_s']:.4g} actions/s; the robot takes {summary['control_hz']:g}/s: a tick is "
            f"{100 * summary['share_of_chunk']:.3g} % of the {summary['chunk_s']:.3g} s that its chunk lasts"
        )
    share = summary["host_ms"] / summary["tick"]["p50"] if summary["tick"]["p50"] else 0.0
    lines.append(f"host         {format_ms(summary['host_ms'])} of a tick outside engines ({100 * share:.3g} %)")
    if document["load_s"] is not None:
        lines.append(f"loading      {document['load_s']:.3g} s")
    return lines


def _unsteadiness(document: Mapping[str, Any]) -> list[str]:
    jitter = document["jitter"]
    if jitter is None:
        return []
    latency = jitter["latency_ms"]
    words = f"{format_ms(latency['step_mean'])} from tick to tick, {format_ms(latency['spread'])} least to greatest"
    lines = [f"jitter       {words}"]
    if "rate_hz" in jitter:
        lines.append(
            f"pace         {jitter['rate_hz']:g} Hz: {jitter['late_starts']} late starts, the latest by "
            f"{format_ms(jitter['latest_start_ms'])}"
        )
    return lines


def _deadline(document: Mapping[str, Any]) -> list[str]:
    found = document["deadline"]
    if found is None:
        return []
    worst = f", by {format_ms(found['worst_over'])} at worst, {found['in_a_row']} in a row" if found["missed"] else ""
    return [f"deadline     {format_ms(found['limit'])}: {found['missed']} of {found['count']} missed{worst}"]


def _roofline(document: Mapping[str, Any]) -> list[str]:
    found = document["roofline"]
    if found is None:
        return []
    lines = []
    for graph, entry in found["graphs"].items():
        words = f"{format_ms(entry['measured_ms'])} a run, {entry['tflops']:.3g} TFLOP/s, {entry['gbps']:.3g} GB/s"
        if entry["fraction"] is not None:
            words += (
                f"; {100 * entry['fraction']:.3g} % of the {entry['bound_by']} roofline, planned "
                f"{format_ms(entry['predicted_ms'])}"
            )
        lines.append(f"graph        {graph}: {words}")
    if found["why"]:
        lines.append(f"roofline     not known: {found['why']}")
    return lines


def _memory(document: Mapping[str, Any]) -> list[str]:
    memory, words = document["memory"], []
    if memory["gpu_bytes"]:
        words.append(f"{format_bytes(sum(memory['gpu_bytes'].values()))} of the GPU")
    if memory["resident_bytes"] is not None:
        words.append(f"{format_bytes(memory['resident_bytes'])} resident")
    if memory["peak_resident_bytes"] is not None:
        words.append(f"at most {format_bytes(memory['peak_resident_bytes'])}")
    return [f"memory       {', '.join(words)}"] if words else []


def _energy(document: Mapping[str, Any]) -> list[str]:
    energy = document["energy"]
    if energy is None:
        return ["energy       not known"]
    if energy["per_chunk_j"] is None:
        return [f"energy       {_channels(energy)}"]
    above = f", {energy['above_idle_j']:.3g} J above idle" if energy["above_idle_j"] is not None else ""
    return [
        f"energy       {energy['per_chunk_j']:.3g} J a chunk at {energy['power_w']:.3g} W{above}; "
        f"{', '.join(energy['counted'])}; {energy['chunks']} chunks"
    ]


def _channels(energy: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {entry['per_chunk_j']:.3g} J a chunk" for name, entry in energy["channels"].items())


def _machine(document: Mapping[str, Any]) -> list[str]:
    lines = []
    for title, unit, key in (("clocks", "MHz", "clocks"), ("temperature", "C", "temperatures")):
        words = [f"{name} {_span(entry, unit)}" for name, entry in document[key].items()]
        if words:
            lines.append(f"{title:<13}{'; '.join(_shortened(words))}")
    throttling = document["throttling"]
    seen = ", ".join(f"{name} ({value:g})" for name, value in throttling["seen"].items())
    said = seen or ("none" if throttling["known"] else "not known")
    lines.append(f"throttling   {said}")
    for name, why in document["sensors"]["absent"].items():
        lines.append(f"no sensor    {name}: {why}")
    return lines


def _span(entry: Mapping[str, float], unit: str) -> str:
    low, high = f"{entry['min']:.4g}", f"{entry['max']:.4g}"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _shortened(words: Sequence[str], most: int = 6) -> list[str]:
    return list(words) if len(words) <= most else [*words[:most], f"{len(words) - most} more"]


def _ms(value: Optional[float]) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.4f}"
