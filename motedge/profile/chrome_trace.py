"""All spans as a Chrome trace: ui.perfetto.dev and chrome://tracing open it.

Format: Trace Event Format (Google, 2016), complete events ("X") in microseconds, counters ("C"), metadata ("M").
"""

from __future__ import annotations

from typing import Any

from motedge.profile.measurement import Measurement
from motedge.profile.sensors.sensor import THROTTLED
from motedge.profile.span_recorder import DEVICE

_PROCESS = 1
_PHASES, _HOST, _DEVICE = 1, 2, 3
_TRACKS = {_PHASES: "phases", _HOST: "host", _DEVICE: "GPU"}


def chrome_trace(measured: Measurement, name: str) -> dict[str, Any]:
    """The trace as JSON; `name` is that of the process in the viewer. Spans of one track nest."""
    events: list[dict[str, Any]] = [_named("process_name", 0, name)]
    devices = any(span.track == DEVICE for tick in measured.ticks for span in tick.spans)
    for track, words in _TRACKS.items():
        if track != _DEVICE or devices:
            events.append(_named("thread_name", track, words))
    for phase, start_s, end_s in measured.phases:
        events.append(_span(measured, phase, _PHASES, start_s, end_s, {}))
    for number, tick in enumerate(measured.ticks):
        for span in tick.spans:
            details = {} if span.depth else {"tick": number, "phase": tick.phase, "forwards": tick.forwards}
            track = _DEVICE if span.track == DEVICE else _HOST
            events.append(_span(measured, span.name, track, span.start_s, span.end_s, details))
    for channel in measured.sensors.channels():
        if channel.kind == THROTTLED:
            continue
        title = f"{channel} [{channel.kind}]"
        for at_s, value in measured.sensors.series(channel):
            events.append(
                {
                    "ph": "C",
                    "pid": _PROCESS,
                    "name": title,
                    "ts": _us(measured, at_s),
                    "args": {channel.kind: value},
                }
            )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _named(kind: str, track: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": _PROCESS, "tid": track, "name": kind, "args": {"name": name}}


def _span(
    measured: Measurement, name: str, track: int, start_s: float, end_s: float, details: dict[str, Any]
) -> dict[str, Any]:
    start_us = _us(measured, start_s)
    return {
        "ph": "X",
        "pid": _PROCESS,
        "tid": track,
        "name": name,
        "ts": start_us,
        "dur": round(_us(measured, end_s) - start_us, 3),
        "args": details,
    }


def _us(measured: Measurement, at_s: float) -> float:
    return round(1e6 * (at_s - measured.origin_s), 3)
