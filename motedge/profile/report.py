"""profile.json: everything that was measured, as one document that others can read. Schema motedge.profile/v1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from motedge.errors import DataError
from motedge.files import PathLike
from motedge.profile.energy import energy_between, energy_report
from motedge.profile.measurement import (
    ENERGY,
    FIRST,
    IDLE,
    NEW_PROMPT,
    STEPS,
    TICK_PHASES,
    WARM,
    WARMUP,
    Measurement,
    TickSample,
)
from motedge.profile.options import SETTLING_S, ProfileOptions
from motedge.profile.report_file import read_report
from motedge.profile.sensors.sensor import CLOCK_MHZ, TEMPERATURE_C, THROTTLE_COUNT, THROTTLED
from motedge.profile.stages import in_order
from motedge.profile.statistics import Summary, jitter, missed

SCHEMA = "motedge.profile/v1"
# What every profile has; `profile_document` says what is in each
_KEYS = ("schema", "complete", "device", "versions", "bundle", "engine", "samples", "stages")
# Readings that are written down of each channel; more are thinned out
_MOST_READINGS = 2000
# A tick that starts later than this was not on its planned moment, ms
_LATE_MS = 1.0


def profile_document(
    measured: Measurement, options: ProfileOptions, facts: Mapping[str, Any], roofline: Optional[Mapping[str, Any]]
) -> dict[str, Any]:
    """The document.

    Args:
        measured: what there is, of a whole run or of one that was cut short.
        options: how it was taken.
        facts: "device", "versions", "bundle", "engine", "observation", "time", as they are written.
        roofline: of `motedge.profile.prediction.roofline`; None where it was not worked out.

    Returns (times in ms, sums of stages as `motedge.profile.stages.stage_times` says):
        complete, stopped: whether it ran to its end, and where not
        samples: columns of all ticks: phase, start_s, forwards, und_len, late_ms, stages_ms by stage
        stages: stage -> phase -> percentiles
        graphs: graph -> percentiles of one run, warm
        summary, jitter, deadline, roofline, memory, energy, sensors, clocks, temperatures, throttling, notes
    """
    warm = measured.of_phase(WARM)
    graphs = graph_summaries(warm, measured.ticks)
    return {
        "schema": SCHEMA,
        "complete": measured.stopped is None,
        "stopped": measured.stopped,
        **facts,
        "options": {name: getattr(options, name) for name in ProfileOptions.__dataclass_fields__},
        "chunk": dict(measured.chunk),
        "load_s": None if measured.load_s is None else round(measured.load_s, 4),
        "span_cost_us": None if measured.span_cost_us is None else round(measured.span_cost_us, 3),
        "summary": _summary(measured, warm),
        "stages": _stages(measured),
        "graphs": {name: summary.to_dict() for name, summary in graphs.items()},
        "jitter": _jitter(warm, options),
        "deadline": None if options.deadline_ms is None else missed([tick.ms for tick in warm], options.deadline_ms),
        "roofline": None if roofline is None else dict(roofline),
        "memory": {
            "gpu_bytes": dict(measured.ledger),
            "resident_bytes": measured.rss_bytes,
            "peak_resident_bytes": measured.peak_rss_bytes,
        },
        "energy": _energy(measured),
        **_sensors(measured),
        "phases": [
            {"phase": name, "start_s": _since(measured, start_s), "end_s": _since(measured, end_s)}
            for name, start_s, end_s in measured.phases
        ],
        "samples": _samples(measured),
        "notes": list(measured.notes),
    }


def load_profile(path: PathLike) -> dict[str, Any]:
    """Reads a profile.json, or the one in a folder.

    Raises:
        DataError: it does not exist, is no profile, is damaged, or of a newer schema.
    """
    file, document = read_report(path, "profile", SCHEMA)
    lacking = [key for key in _KEYS if key not in document]
    if lacking:
        raise DataError(f"{file} is damaged", got=f"no {', '.join(lacking)}", fix="take the profile again")
    _check_samples(file, document["samples"])
    return document


def graph_summaries(warm: Sequence[TickSample], ticks: Sequence[TickSample]) -> dict[str, Summary]:
    """Graph -> ms of one run: over ticks that a GPU told step by step, else over the warm ones, else over all."""
    found: dict[str, list[float]] = {}
    for tick in [tick for tick in ticks if tick.phase == STEPS] or warm:
        for graph, runs in tick.graphs_ms.items():
            found.setdefault(graph, []).extend(runs)
    kept = set(found)
    for tick in ticks:
        for graph, runs in tick.graphs_ms.items():
            if graph not in kept:
                found.setdefault(graph, []).extend(runs)
    return {graph: summary for graph, runs in found.items() if (summary := Summary.of(runs)) is not None}


def _summary(measured: Measurement, warm: Sequence[TickSample]) -> dict[str, Any]:
    """Figures that a person asks for first; None where nothing was measured."""
    ticks = Summary.of([tick.ms for tick in warm])
    first, renewed = measured.of_phase(FIRST), Summary.of([tick.ms for tick in measured.of_phase(NEW_PROMPT)])
    rows, rate_hz = measured.chunk.get("rows"), measured.chunk.get("rate_hz")
    found: dict[str, Any] = {
        "tick": None if ticks is None else ticks.to_dict(),
        "first_ms": round(first[0].ms, 4) if first else None,
        "new_prompt_ms": None if renewed is None else round(renewed.p50, 4),
        "chunks_per_s": None,
        "actions_per_s": None,
        "control_hz": rate_hz,
        "chunk_s": None,
        "share_of_chunk": None,
        "host_ms": None,
    }
    if ticks is None:
        return found
    host = Summary.of([tick.stages_ms["host"] for tick in warm])
    found["host_ms"] = None if host is None else round(host.p50, 4)
    found["chunks_per_s"] = round(1e3 / ticks.mean, 4)
    if rows and rate_hz:
        found["actions_per_s"] = round(rows * 1e3 / ticks.mean, 3)
        found["chunk_s"] = round(rows / rate_hz, 4)
        found["share_of_chunk"] = round(ticks.p50 / 1e3 / (rows / rate_hz), 5)
    return found


def _stages(measured: Measurement) -> dict[str, dict[str, Any]]:
    names = in_order({name for tick in measured.ticks for name in tick.stages_ms})
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        found[name] = {}
        for phase in TICK_PHASES:
            ticks = measured.of_phase(phase)
            summary = Summary.of([tick.stages_ms[name] for tick in ticks if name in tick.stages_ms])
            if summary is not None and phase != WARMUP:
                found[name][phase] = summary.to_dict()
    return found


def _jitter(warm: Sequence[TickSample], options: ProfileOptions) -> Optional[dict[str, Any]]:
    if not warm:
        return None
    found: dict[str, Any] = {"latency_ms": jitter([tick.ms for tick in warm])}
    late = [tick.late_ms for tick in warm if tick.late_ms is not None]
    if options.rate_hz is not None and late:
        starts = [tick.start_s for tick in warm]
        periods = [1e3 * (after - before) for before, after in zip(starts, starts[1:])]
        period = Summary.of([abs(ms - 1e3 / options.rate_hz) for ms in periods])
        found["rate_hz"] = options.rate_hz
        found["late_starts"] = sum(ms > _LATE_MS for ms in late)
        found["latest_start_ms"] = round(max(late), 4)
        found["period_error_ms"] = None if period is None else period.to_dict()
    return found


def _energy(measured: Measurement) -> Optional[dict[str, Any]]:
    span = measured.span_of(ENERGY)
    ticks = measured.of_phase(ENERGY)
    if span is None or not ticks:
        return None
    spent = energy_between(measured.sensors, ticks[0].start_s, ticks[-1].end_s)
    rest = measured.span_of(IDLE)
    idle = [] if rest is None else energy_between(measured.sensors, rest[0] + SETTLING_S, rest[1])
    return energy_report(spent, idle, measured.parts, len(ticks))


def _sensors(measured: Measurement) -> dict[str, Any]:
    log = measured.sensors
    series = {}
    for channel in log.channels():
        found = log.series(channel)
        every = -(-len(found) // _MOST_READINGS)
        series[str(channel) + f" [{channel.kind}]"] = {
            "kind": channel.kind,
            "sensor": channel.sensor,
            "name": channel.name,
            "time_s": [_since(measured, at_s) for at_s, _ in found[::every]],
            "values": [round(value, 4) for _, value in found[::every]],
        }
    reading = Summary.of(log.reading_ms)
    return {
        "sensors": {
            "present": log.present,
            "absent": log.absent,
            "reading_ms": None if reading is None else reading.to_dict(),
            "series": series,
        },
        "clocks": _ranges(series, CLOCK_MHZ),
        "temperatures": _ranges(series, TEMPERATURE_C),
        "throttling": _throttling(series),
    }


def _ranges(series: Mapping[str, Mapping[str, Any]], kind: str) -> dict[str, dict[str, float]]:
    return {
        f"{entry['sensor']} {entry['name']}": {
            "min": min(entry["values"]),
            "max": max(entry["values"]),
            "last": entry["values"][-1],
        }
        for entry in series.values()
        if entry["kind"] == kind and entry["values"]
    }


def _throttling(series: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What slowed the machine down: name -> share of the readings, or by how much a counter rose. Known: whether any
    sensor would have told."""
    seen: dict[str, float] = {}
    known = False
    for entry in series.values():
        values, name = entry["values"], f"{entry['sensor']} {entry['name']}"
        if entry["kind"] == THROTTLED:
            known = True
            seen[name] = sum(values) / len(values)
        elif entry["kind"] == THROTTLE_COUNT:
            known = True
            seen[name] = values[-1] - values[0]
    return {"known": known, "seen": {name: round(value, 4) for name, value in seen.items() if value}}


def _samples(measured: Measurement) -> dict[str, Any]:
    ticks = measured.ticks
    names = in_order({name for tick in ticks for name in tick.stages_ms})
    return {
        "phase": [tick.phase for tick in ticks],
        "start_s": [_since(measured, tick.start_s) for tick in ticks],
        "forwards": [tick.forwards for tick in ticks],
        "und_len": [tick.und_len for tick in ticks],
        "launch": [tick.launch for tick in ticks],
        "late_ms": [None if tick.late_ms is None else round(tick.late_ms, 4) for tick in ticks],
        "stages_ms": {
            name: [None if name not in tick.stages_ms else round(tick.stages_ms[name], 5) for tick in ticks]
            for name in names
        },
    }


def _check_samples(file: Path, samples: Any) -> None:
    columns = samples.get("stages_ms") if isinstance(samples, dict) else None
    if not isinstance(columns, dict) or not isinstance(samples.get("phase"), list):
        raise DataError(f"{file} is damaged", got="samples without phase and stages_ms", fix="take the profile again")
    count = len(samples["phase"])
    for name, column in columns.items():
        fit = isinstance(column, list) and len(column) == count
        if not fit or any(not (value is None or isinstance(value, (int, float))) for value in column):
            raise DataError(f"{file} is damaged", expected=f"{count} times of stage {name!r}", fix="take it again")


def _since(measured: Measurement, at_s: float) -> float:
    return round(at_s - measured.origin_s, 6)
