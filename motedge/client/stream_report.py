"""What became of the chunks, and how evenly the actions came."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

SCHEMA = "motedge.chunk_stream_report/v1"
# Newest samples of a duration that percentiles are taken over: ten minutes at 15 Hz
_SAMPLES = 9000


class Durations:
    """The newest durations, and their percentiles; takes the same memory however long it runs."""

    def __init__(self) -> None:
        self._values_s = np.zeros(_SAMPLES)
        self._count = 0

    def add(self, value_s: float) -> None:
        """One more."""
        self._values_s[self._count % _SAMPLES] = value_s
        self._count += 1

    def summary_ms(self) -> dict[str, float]:
        """count, p50, p95, p99 and max, in ms; of no samples the count alone."""
        values = self._values_s[: min(self._count, _SAMPLES)] * 1e3
        if not len(values):
            return {"count": 0}
        p50, p95, p99 = np.percentile(values, (50, 95, 99)).tolist()
        return {"count": self._count, "p50": p50, "p95": p95, "p99": p99, "max": float(values.max())}


@dataclass
class StreamCounters:
    """Counts since the stream began. fresh + gap_ticks + missed_ticks = the periods since the first action."""

    # Periods whose action was a row of a chunk
    fresh: int = 0
    # Periods without a row, and how often a run of them began
    gap_ticks: int = 0
    gaps: int = 0
    # Periods in which nobody asked for an action
    missed_ticks: int = 0
    # Calls in a period whose action was given out already
    repeated_calls: int = 0
    # Calls with a time before the last call's
    clock_backwards: int = 0
    # Requests, and what came of them: used + late + bad + errors + one that may be on its way or wait for its time
    requested: int = 0
    chunks_used: int = 0
    # Arrived when the time of all their rows was over
    chunks_late: int = 0
    # No chunks: shape, rate or numbers wrong
    chunks_bad: int = 0
    source_errors: int = 0
    # Rows of used chunks that were over before the takeover
    rows_skipped: int = 0
    # Rows executed past the horizon because the next chunk was not there
    rows_overrun: int = 0
    # Conditioned chunks that did not begin with what they were conditioned on
    seam_mismatches: int = 0


@dataclass
class StreamReport:
    """The counts with timing and seams; `to_dict` is its JSON form."""

    counters: StreamCounters
    # From a period's beginning to the call that took its action
    jitter_ms: dict[str, float]
    # From the request of a chunk to its arrival
    latency_ms: dict[str, float]
    longest_gap_s: float
    # How long the chunk that is on its way has been asked for; None if none is. A source that hangs shows here
    waiting_s: Optional[float] = None
    # Largest difference at a takeover between the two chunks' rows for the same moment, [fields] in their units
    seam_disagreement: Optional[list[float]] = None
    # Largest step from the last action of a chunk to the first that was executed of the next, [fields]
    seam_step: Optional[list[float]] = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass
class Measurements:
    """What a stream measures while it runs."""

    counters: StreamCounters = field(default_factory=StreamCounters)
    jitter: Durations = field(default_factory=Durations)
    latency: Durations = field(default_factory=Durations)
    longest_gap_ticks: int = 0
    gap_now_ticks: int = 0
    disagreement: Optional[NDArray[np.float64]] = None
    step: Optional[NDArray[np.float64]] = None

    def gap(self, waiting: bool) -> None:
        """One period with a row, or without."""
        if not waiting:
            self.counters.fresh += 1
            self.gap_now_ticks = 0
            return
        self.counters.gap_ticks += 1
        self.counters.gaps += self.gap_now_ticks == 0
        self.gap_now_ticks += 1
        self.longest_gap_ticks = max(self.longest_gap_ticks, self.gap_now_ticks)

    def seam(self, disagreement: Optional[NDArray[np.float64]], step: Optional[NDArray[np.float64]]) -> None:
        """One takeover; None where there is nothing to compare with."""
        self.disagreement = _largest(self.disagreement, disagreement)
        self.step = _largest(self.step, step)

    def report(self, period_s: float) -> StreamReport:
        """All of it so far."""
        return StreamReport(
            counters=StreamCounters(**vars(self.counters)),
            jitter_ms=self.jitter.summary_ms(),
            latency_ms=self.latency.summary_ms(),
            longest_gap_s=self.longest_gap_ticks * period_s,
            seam_disagreement=None if self.disagreement is None else self.disagreement.tolist(),
            seam_step=None if self.step is None else self.step.tolist(),
        )


def _largest(
    before: Optional[NDArray[np.float64]], now: Optional[NDArray[np.float64]]
) -> Optional[NDArray[np.float64]]:
    if now is None:
        return before
    size = np.abs(now)
    return size if before is None else np.maximum(before, size)
