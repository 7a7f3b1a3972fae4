"""A policy whose stages take as long as a test says, and a document of a profile made of given times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import numpy as np

from motedge.profile.measurement import FIRST, NEW_PROMPT, WARM, Measurement, TickSample
from motedge.profile.options import ProfileOptions
from motedge.profile.report import profile_document
from motedge.profile.span_recorder import Recorded
from motedge.runtime.policy import ActionChunk, Observation
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.spans import device_span, device_steps_wanted, span

STAGES = {
    "tokenize": 0.0001,
    "ingest": 0.0005,
    "vae_encoder": 0.001,
    "prefill": 0.0001,
    "step 0 cond": 0.002,
    "step 0 uncond": 0.001,
    "step 0 solver": 0.0002,
    "decode": 0.0001,
}
DEVICE: dict[str, Any] = {
    "system": "Linux",
    "architecture": "aarch64",
    "cpu": "Neoverse-V3AE",
    "cores": 14,
    "usable_cores": 14,
    "memory_bytes": 128 << 30,
    "gpus": [{"name": "NVIDIA Thor", "driver": "580.00", "compute_capability": "11.0"}],
    "board": "NVIDIA Jetson AGX Thor",
    "l4t": "38.2",
    "target": "jetson-agx-thor-t5000",
    "power_mode": "MAXN",
}
FACTS: dict[str, Any] = {
    "time": "2026-01-01T00:00:00+00:00",
    "device": DEVICE,
    "versions": {"motedge": "0.1", "python": "3.12.3", "onnxruntime": "1.23"},
    "bundle": {"name": "edge", "manifest_sha256": "a" * 64, "model": "edge policy-droid", "shape_set": "droid"},
    "engine": {"name": "onnxruntime", "recipe": None, "variants": {"gen_step": "primitive-fp32"}, "sampler": {}},
    "observation": {"instruction": "open the drawer", "source": None},
}


class ScriptedPolicy:
    """Sleeps through its stages; `fail_at` raises `error` in that tick."""

    def __init__(
        self,
        stages: Mapping[str, float] = STAGES,
        *,
        on_device: bool = False,
        fail_at: Optional[int] = None,
        error: Optional[BaseException] = None,
    ) -> None:
        self.stages, self.on_device, self.fail_at, self.error = dict(stages), on_device, fail_at, error
        self.seen: list[str] = []
        self.during: Callable[[], None] = lambda: None

    def act(self, observation: Observation) -> ActionChunk:
        if self.fail_at == len(self.seen):
            assert self.error is not None
            raise self.error
        self.seen.append(observation.instruction)
        with span("tick"):
            for name, seconds in self.stages.items():
                with span(name):
                    time.sleep(seconds)
            self.during()
            if self.on_device:
                with span("wait"):
                    time.sleep(0.001)
                device_span("vae_encoder", -0.9, -0.8)
                device_span("denoise", -0.8, 0.0)
                if device_steps_wanted():
                    for number, part in enumerate(("cond", "uncond", "solver")):
                        device_span(f"step 0 {part}", -0.6 + 0.2 * number, -0.4 + 0.2 * number)
        robot = find_embodiment("droid_lerobot")
        return ActionChunk(
            actions=np.zeros((32, 8), np.float32),
            rate_hz=15.0,
            field_names=robot.fields,
            units=robot.units,
            embodiment=robot.name,
            seed=0,
            forwards=2,
            missing_views=(),
            timings_ms={"total_ms": 1.0},
            details={
                "steps": 1,
                "forwards": 2,
                "und_len": 5,
                "prefills": int(self.seen.count(observation.instruction) == 1),
            },
        )

    def memory_bytes(self) -> dict[str, int]:
        return {"weights of gen_step": 1000}

    def close(self) -> None:
        pass


def tick_sample(phase: str, start_s: float, stages_ms: Mapping[str, float]) -> TickSample:
    """A tick whose stages follow one another."""
    at_s, spans = start_s, []
    for name, ms in stages_ms.items():
        spans.append(Recorded(name, at_s, at_s + ms / 1e3, 1))
        at_s += ms / 1e3
    spans.insert(0, Recorded("tick", start_s, at_s, 0))
    return TickSample.of(phase, (start_s, at_s), tuple(spans), {"forwards": 2, "prefills": 0, "und_len": 5})


def document_of(gen_ms: Sequence[float], **changes: Any) -> dict[str, Any]:
    """A profile whose warm ticks take these times in gen_step's first forward, and 1 ms in the encoder."""
    measured, at_s = Measurement(origin_s=0.0, load_s=0.5), 0.0
    phases = [FIRST, NEW_PROMPT] + [WARM] * len(gen_ms)
    for phase, ms in zip(phases, [gen_ms[0], gen_ms[0], *gen_ms]):
        tick = tick_sample(phase, at_s, {"ingest": 0.5, "vae_encoder": 1.0, "step 0 cond": ms, "step 0 solver": 0.1})
        measured.ticks.append(tick)
        at_s = tick.end_s + 0.001
    measured.chunk = {"steps": 1, "forwards": 2, "und_len": 5, "rows": 32, "rate_hz": 15.0}
    measured.stopped = changes.pop("stopped", None)
    facts = {**FACTS, **changes}
    return profile_document(measured, ProfileOptions(ticks=len(gen_ms)), facts, None)
