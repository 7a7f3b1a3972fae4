"""Times of the warm ticks in the form of `trtexec --exportTimes`, for tools that read that.

A tick has more stages than an engine's run. Transfer to the device is the ingest of the images, compute lies between
the start of the image encoder and the end of the last step, transfer back is the decoding of the actions; enqueue is
the host's part of the launch, on a CPU the whole of compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Optional

from motedge.profile.measurement import TickSample
from motedge.profile.span_recorder import DEVICE, Recorded

_COMPUTE = ("vae_encoder", "prefill", "rope", "noise", "bind")


def exported_times(ticks: Sequence[TickSample]) -> list[dict[str, float]]:
    """One entry a tick, ms since the start of the first."""
    if not ticks:
        return []
    origin_s = ticks[0].start_s
    return [_entry(tick, origin_s) for tick in ticks]


def _entry(tick: TickSample, origin_s: float) -> dict[str, float]:
    on_device = [span for span in tick.spans if span.track == DEVICE]
    on_host = [span for span in tick.spans if span.name in _COMPUTE or span.name.startswith("step ")]
    compute = _hull(on_device) or _hull(on_host) or (tick.start_s, tick.end_s)
    enqueue = _hull(span for span in tick.spans if span.name == "enqueue") or compute
    found = {}
    for name, (start_s, end_s) in (
        ("Enq", enqueue),
        ("H2d", _hull(span for span in tick.spans if span.name == "ingest") or (tick.start_s, tick.start_s)),
        ("Compute", compute),
        ("D2h", _hull(span for span in tick.spans if span.name == "decode") or (tick.end_s, tick.end_s)),
    ):
        found[f"start{name}Ms"] = round(1e3 * (start_s - origin_s), 5)
        found[f"end{name}Ms"] = round(1e3 * (end_s - origin_s), 5)
    for name, key in (("h2dMs", "H2d"), ("computeMs", "Compute"), ("d2hMs", "D2h")):
        found[name] = round(found[f"end{key}Ms"] - found[f"start{key}Ms"], 5)
    found["latencyMs"] = round(tick.ms, 5)
    return found


def _hull(spans: Iterable[Recorded]) -> Optional[tuple[float, float]]:
    found = list(spans)
    return (min(span.start_s for span in found), max(span.end_s for span in found)) if found else None
