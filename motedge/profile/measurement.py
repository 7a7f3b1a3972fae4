"""What was measured, as it grows: ticks with their spans, phases, and the sensors' log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from motedge.profile.sensors.sampler import SensorLog
from motedge.profile.span_recorder import Recorded
from motedge.profile.stages import TICK, graph_times, stage_times

# Phases, in the order in which they are run. FIRST and NEW_PROMPT are cold. In STEPS a GPU tells each denoising step,
# for which it is launched piece by piece; ENERGY is timed with sensors being read
FIRST, WARMUP, IDLE, WARM, STEPS = "first", "warm-up", "idle", "warm", "step by step"
NEW_PROMPT, ENERGY = "new prompt", "energy"
TICK_PHASES = (FIRST, WARMUP, WARM, STEPS, NEW_PROMPT, ENERGY)


@dataclass(frozen=True)
class TickSample:
    """One tick."""

    phase: str
    # Seconds of `time.perf_counter`
    start_s: float
    end_s: float
    spans: tuple[Recorded, ...]
    # Stage -> ms, in order
    stages_ms: Mapping[str, float]
    # Runs of gen_step and und_prefill, tokens of the prompt, how it was launched
    forwards: int
    prefills: int
    und_len: int
    launch: str
    # After the moment for which it was planned, ms; None where ticks follow one another
    late_ms: Optional[float] = None

    @property
    def ms(self) -> float:
        """Observation to actions."""
        return self.stages_ms[TICK]

    @property
    def graphs_ms(self) -> dict[str, list[float]]:
        """Graph -> ms of each of its runs."""
        return graph_times(self.stages_ms, self.forwards, self.prefills)

    @classmethod
    def of(
        cls,
        phase: str,
        times_s: tuple[float, float],
        spans: tuple[Recorded, ...],
        details: Mapping[str, Any],
        late_ms: Optional[float] = None,
    ) -> TickSample:
        """`details`: of the chunk, as `motedge.runtime.policy.ActionChunk` has them."""
        return cls(
            phase=phase,
            start_s=times_s[0],
            end_s=times_s[1],
            spans=spans,
            stages_ms=stage_times(spans),
            forwards=int(details.get("forwards", 0)),
            prefills=int(details.get("prefills", 0)),
            und_len=int(details.get("und_len", 0)),
            launch=str(details.get("launch", "host")),
            late_ms=late_ms,
        )


@dataclass
class Measurement:
    """All of it. What an interrupted run leaves is as good as far as it goes."""

    # When the run began, seconds of `time.perf_counter`: the zero of all times that are written down
    origin_s: float
    load_s: Optional[float] = None
    ticks: list[TickSample] = field(default_factory=list)
    # (Phase, start, end), seconds of `time.perf_counter`
    phases: list[tuple[str, float, float]] = field(default_factory=list)
    sensors: SensorLog = field(default_factory=SensorLog)
    # Sensor -> part whose power it reads
    parts: Mapping[str, str] = field(default_factory=dict)
    # Of the policy: bytes by purpose on a GPU; of the process, bytes now and at its most
    ledger: Mapping[str, int] = field(default_factory=dict)
    rss_bytes: Optional[int] = None
    peak_rss_bytes: Optional[int] = None
    # Facts of the first chunk: sampler, missing views, rows, rate
    chunk: Mapping[str, Any] = field(default_factory=dict)
    span_cost_us: Optional[float] = None
    # What went otherwise than asked for
    notes: list[str] = field(default_factory=list)
    # None: it ran to its end; else where and why it did not
    stopped: Optional[str] = None

    def of_phase(self, phase: str) -> list[TickSample]:
        """Ticks of one phase."""
        return [tick for tick in self.ticks if tick.phase == phase]

    def span_of(self, phase: str) -> Optional[tuple[float, float]]:
        """Start and end of a phase, if it took place."""
        found = [(start_s, end_s) for name, start_s, end_s in self.phases if name == phase]
        return found[0] if found else None
