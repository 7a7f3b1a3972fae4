"""A profile as a Jetson with all sensors would give one: made up, to look at pages with everything on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from profiled_policy import FACTS

from motedge.profile.measurement import ENERGY, FIRST, IDLE, NEW_PROMPT, STEPS, WARM, WARMUP, Measurement, TickSample
from motedge.profile.options import ProfileOptions
from motedge.profile.report import profile_document
from motedge.profile.sensors.sensor import BOARD, CLOCK_MHZ, POWER_W, TEMPERATURE_C, THROTTLED, Channel
from motedge.profile.span_recorder import DEVICE, Recorded

_RAIL, _CORE = Channel("tegrastats", "VDD_IN", POWER_W), Channel("tegrastats", "VDD_GPU", POWER_W)
_CLOCK, _TJ = Channel("tegrastats", "GPU", CLOCK_MHZ), Channel("tegrastats", "tj", TEMPERATURE_C)
_CAP = Channel("NVML", "GPU 0: power cap", THROTTLED)
_COUNTS = {FIRST: 1, WARMUP: 5, WARM: 120, STEPS: 20, NEW_PROMPT: 5, ENERGY: 30}


def _tick(phase: str, start_s: float, gen_ms: float, und_ms: float) -> TickSample:
    at_s, spans = start_s, []
    for name, ms in (("tokenize", 0.02), ("ingest", 1.1), ("prefill", und_ms), ("noise", 0.3), ("enqueue", 0.9)):
        spans.append(Recorded(name, at_s, at_s + ms / 1e3, 1))
        at_s += ms / 1e3
    end_s = at_s + (gen_ms + 4.0) / 1e3
    spans.append(Recorded("wait", at_s, end_s, 1))
    spans.append(Recorded("vae_encoder", end_s - (gen_ms + 3.6) / 1e3, end_s - gen_ms / 1e3, 0, DEVICE))
    spans.append(Recorded("denoise", end_s - gen_ms / 1e3, end_s, 0, DEVICE))
    if phase == STEPS:
        at_s, part_ms = end_s - gen_ms / 1e3, gen_ms / 5.1
        for name in (
            "0 cond",
            "0 uncond",
            "0 solver",
            "1 cond",
            "1 solver",
            "2 cond",
            "2 solver",
            "3 cond",
            "3 solver",
        ):
            ms = part_ms if "cond" in name else part_ms / 40
            spans.append(Recorded(f"step {name}", at_s, at_s + ms / 1e3, 0, DEVICE))
            at_s += ms / 1e3
    spans.append(Recorded("decode", end_s, end_s + 0.0001, 1))
    spans.append(Recorded("tick", start_s, end_s + 0.0002, 0))
    details = {"forwards": 5, "prefills": 2 if und_ms > 1 else 0, "und_len": 164, "launch": "one CUDA graph"}
    return TickSample.of(phase, (start_s, end_s + 0.0002), tuple(sorted(spans, key=lambda s: s.start_s)), details)


def gpu_document(seed: int = 1, scale: float = 1.0) -> dict[str, Any]:
    """The document."""
    random, measured, at_s = np.random.default_rng(seed), Measurement(origin_s=0.0, load_s=6.2), 6.2
    for phase, count in _COUNTS.items():
        start_s = at_s
        if phase == WARM:
            measured.phases.append((IDLE, at_s, at_s + 3.0))
            at_s, start_s = at_s + 3.0, at_s + 3.0
        for _ in range(count):
            gen_ms = scale * (150 + random.gamma(2.0, 1.5)) * (2.2 if phase == FIRST else 1.0)
            tick = _tick(phase, at_s, gen_ms, 18.0 if phase in (FIRST, NEW_PROMPT) else 0.02)
            measured.ticks.append(tick)
            at_s = tick.end_s + 0.002
        measured.phases.append((phase, start_s, at_s))
    idle = measured.span_of(IDLE) or (0.0, 0.0)
    for moment in np.arange(0.2, at_s, 0.1):
        busy = 0.0 if moment < 6.2 or idle[0] < moment < idle[1] else 1.0
        watts = 22 + 64 * busy + random.normal(0, 1.2)
        readings = {
            _RAIL: watts,
            _CORE: 6 + 48 * busy,
            _CLOCK: 400 + 1175 * busy,
            _TJ: 41 + 14 * (1 - np.exp(-moment / 8)),
            _CAP: 0.0,
        }
        measured.sensors.samples.append((float(moment), {c: float(value) for c, value in readings.items()}))
    measured.sensors.present = {"tegrastats": {}, "Linux": {"CPU governor": "schedutil"}}
    measured.sensors.absent = {"jtop": "jetson-stats is not installed: pip install jetson-stats"}
    measured.parts = {"tegrastats": BOARD}
    measured.chunk = {
        "steps": 4,
        "forwards": 5,
        "und_len": 164,
        "rows": 32,
        "rate_hz": 15.0,
        "launch": "one CUDA graph",
    }
    measured.ledger = {"weights of gen_step": 3 << 30, "weights of und_prefill": 2 << 30, "buffers": 300 << 20}
    measured.rss_bytes, measured.peak_rss_bytes = 900 << 20, 1200 << 20
    graphs = {
        name: {
            "variant": "fused-fp16", "measured_ms": ms, "gflop": 900.0, "moved_gb": 3.1, "tflops": 900 / ms,
            "gbps": 3100 / ms, "bound_ms": 0.5 * ms, "fraction": 0.5, "bound_by": "compute", "predicted_ms": 0.8 * ms,
            "predicted_low_ms": 0.6 * ms, "predicted_high_ms": 1.1 * ms,
        }
        for name, ms in (("gen_step", 30.6 * scale), ("vae_encoder", 3.6))
    }  # fmt: skip
    roofline = {"target": "jetson-agx-thor-t5000", "graphs": graphs, "why": None}
    return profile_document(measured, ProfileOptions(ticks=120, deadline_ms=160.0), FACTS, roofline)
