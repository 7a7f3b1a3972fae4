"""How long a tick will take at each operating point: measured at warm-up, and tracked from then on.

Two sources. The calibration, taken once, tells how the points relate: the median of each point's own samples, and for
points never measured a line `fixed + per_forward * forwards` through those that were. The evidence, the last `window`
ticks of whatever point, tells how things stand now, for other work shares the GPU. A tick of one point is carried over
to another in two ways: its slowdown as a factor (clocks lowered, time-slicing) and as a delay (waiting for a kernel of
another process). The larger of the two is predicted, so that a guess errs on the safe side; the smaller says whether a
better point is worth a try. A point's own recent ticks outweigh all that.

The prediction is an upper value of the evidence: the second largest, from four samples on, and the largest below. So
one outlier changes nothing, two slow ticks do, and after `window` normal ticks the slowdown is forgotten.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import InternalError, UsageError
from motedge.runtime.deadline.ladder import Ladder
from motedge.runtime.deadline.operating_point import OperatingPoint

# Second largest of 16: about the 94th percentile
WINDOW = 16
# Samples that make up a point's calibration where nobody warmed it up; the first tick of a point is often a cold one
_FIRST_TICKS = 5
_OUTLIER_FROM = 4


@dataclass(frozen=True)
class _Tick:
    number: int
    point: OperatingPoint
    took_ms: float


class LatencyTracker:
    """Predicts in ms of wall time. Deterministic: time comes in with the samples. Not for two threads at once."""

    def __init__(self, ladder: Ladder, *, window: int = WINDOW) -> None:
        """`window`: ticks that count as recent."""
        if isinstance(window, bool) or not isinstance(window, int) or window < 2:
            raise UsageError("the latency window is wrong", expected="at least 2 ticks", got=window)
        self._ladder, self._window = ladder, window
        self._calibration: dict[str, list[float]] = {point.name: [] for point in ladder}
        self._warm: set[str] = set()
        self._recent: deque[_Tick] = deque(maxlen=window)
        self._number = 0
        self._measured = dict.fromkeys(self._calibration, 0)

    def calibrate(self, point: OperatingPoint, samples_ms: Sequence[float]) -> None:
        """Takes warm-up samples as the point's calibration, in place of what was there.

        Raises:
            InternalError: no sample, or one that is not a positive finite time.
        """
        if not samples_ms:
            raise InternalError(f"calibration of {point.name} without a sample")
        self._calibration[point.name] = [_checked(value) for value in samples_ms]
        self._warm.add(point.name)

    def begin_tick(self) -> None:
        """A tick begins, measured in the end or not: evidence ages by ticks."""
        self._number += 1

    def observe(self, point: OperatingPoint, took_ms: float) -> None:
        """A tick at `point` has taken that long, whether it met its deadline or not."""
        took_ms = _checked(took_ms)
        own = self._calibration[point.name]
        if point.name not in self._warm and len(own) < _FIRST_TICKS:
            own.append(took_ms)
        self._measured[point.name] += 1
        self._recent.append(_Tick(self._number, point, took_ms))

    def predict_ms(self, point: OperatingPoint) -> Optional[float]:
        """An upper value of the next tick's time at `point`; None where nothing was ever measured."""
        return self._predict(point, max)

    def hope_ms(self, point: OperatingPoint) -> Optional[float]:
        """As `predict_ms`, but of the two ways to carry over a slowdown the one that is better for `point`."""
        return self._predict(point, min)

    def nominal_ms(self, point: OperatingPoint) -> Optional[float]:
        """The typical time of `point` by the calibration, measured or fitted; None where nothing was ever measured."""
        own = self._calibration[point.name]
        return statistics.median(own) if own else self._fitted_ms(point.forwards)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """JSON form: for each point its calibration, prediction and number of ticks, times in ms."""
        return {
            point.name: {
                "forwards": point.forwards,
                "nominal_ms": _rounded(self.nominal_ms(point)),
                "predicted_ms": _rounded(self.predict_ms(point)),
                "fitted": not self._calibration[point.name],
                "ticks": self._measured[point.name],
            }
            for point in self._ladder
        }

    def _predict(self, point: OperatingPoint, choose: Any) -> Optional[float]:
        nominal = self.nominal_ms(point)
        if nominal is None:
            return None
        recent = [tick for tick in self._recent if tick.number > self._number - self._window]
        if not recent:
            # Upper value of its own warm-up, or the line's, which has no spread
            return _upper(self._calibration[point.name] or [nominal])
        own = [index for index, tick in enumerate(recent) if tick.point == point]
        # What others took before the point's own last tick is the weaker evidence
        kept = recent if not own else [recent[i] for i in own] + recent[own[-1] + 1 :]
        return _upper([self._carried_ms(tick, point, nominal, choose) for tick in kept])

    def _carried_ms(self, tick: _Tick, point: OperatingPoint, nominal: float, choose: Any) -> float:
        """What a tick of one point says of another."""
        if tick.point == point:
            return tick.took_ms
        other = self.nominal_ms(tick.point)
        if other is None:
            raise InternalError(f"{tick.point.name} was observed but has no calibration")
        factor, delay = tick.took_ms / other, tick.took_ms - other
        return max(float(choose(nominal * factor, nominal + delay)), 0.0)

    def _fitted_ms(self, forwards: int) -> Optional[float]:
        """`fixed + per_forward * forwards` by least squares over the measured points, neither part negative."""
        known = [(p.forwards, statistics.median(s)) for p in self._ladder if (s := self._calibration[p.name])]
        if not known:
            return None
        mean_x = statistics.fmean(x for x, _ in known)
        mean_y = statistics.fmean(y for _, y in known)
        spread = sum((x - mean_x) ** 2 for x, _ in known)
        # One point, or a line that begins below zero: all of it is taken to grow with the forwards
        slope = sum((x - mean_x) * (y - mean_y) for x, y in known) / spread if spread else mean_y / mean_x
        slope = min(max(slope, 0.0), mean_y / mean_x)
        return mean_y + slope * (forwards - mean_x)


def _upper(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[-2] if len(ordered) >= _OUTLIER_FROM else ordered[-1]


def _checked(took_ms: float) -> float:
    if not (math.isfinite(took_ms) and took_ms >= 0):
        raise InternalError(f"a tick that took {took_ms} ms")
    # A clock may not resolve it; zero would make factors infinite
    return max(float(took_ms), 1e-6)


def _rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None else round(value, 3)
