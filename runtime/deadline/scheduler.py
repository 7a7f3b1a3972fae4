"""Which operating point a tick gets: the best whose predicted time fits what is left until the deadline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from motedge.runtime.deadline.ladder import Ladder
from motedge.runtime.deadline.latency import LatencyTracker
from motedge.runtime.deadline.operating_point import OperatingPoint
from motedge.runtime.deadline.options import DeadlineOptions

# Verdicts: its prediction fits; a better one than fits, on trial; nothing was ever measured, so the cheapest; nothing
# fits, so the cheapest; nothing fits, and none is started
FITS, TRIAL, UNKNOWN, IMPOSSIBLE, REFUSED = "fits", "trial", "unknown", "impossible", "refused"
# Nothing fits what an earlier tick has left over, though it would fit a whole period: not started, so that the next
# tick finds the worker free
CROWDED_OUT = "crowded-out"
# Ticks between two trials of a better point; doubled after each that missed
_TRIAL_EVERY, _TRIAL_EVERY_MOST = 16, 256


@dataclass(frozen=True)
class Choice:
    """What a tick gets."""

    # None: nothing is started
    point: Optional[OperatingPoint]
    verdict: str
    # By `LatencyTracker.predict_ms`, without the margin; of the cheapest point where none is started
    predicted_ms: Optional[float]

    @property
    def predicted_miss(self) -> bool:
        """Whether the deadline is given up in advance."""
        return self.verdict in (IMPOSSIBLE, REFUSED, CROWDED_OUT)


class Scheduler:
    """Chooses by prediction, and now and then tries the next better point. Not for two threads at once.

    Trials: where load was a delay rather than a factor, predictions for better points stay too high, and only a tick
    at the better point can show it. One is made where the hopeful prediction fits, at least 16 ticks after the last
    trial or miss, and only when the caller allows it, which it does where an earlier chunk covers a miss.
    """

    def __init__(self, ladder: Ladder, tracker: LatencyTracker, options: DeadlineOptions) -> None:
        self._ladder, self._tracker, self._options = ladder, tracker, options
        self._wait = self._every = _TRIAL_EVERY

    def choose(self, left_ms: float, whole_ms: float, *, may_try: bool = False) -> Choice:
        """The point of this tick.

        Args:
            left_ms: Until an answer must be there.
            whole_ms: The same for a tick that finds the worker free.
            may_try: Whether a miss could be covered, so that a trial is allowed.
        """
        predictions = [(point, self._tracker.predict_ms(point)) for point in self._ladder]
        for index, (point, predicted) in enumerate(predictions):
            if predicted is not None and self._fits(predicted, left_ms):
                better = self._ladder.points[index - 1] if index else None
                if better is not None and may_try and self._worth_a_try(better, left_ms):
                    return Choice(better, TRIAL, self._tracker.predict_ms(better))
                return Choice(point, FITS, predicted)
        cheapest, predicted = predictions[-1]
        if predicted is None:
            return Choice(cheapest, UNKNOWN, None)
        if self._fits(predicted, whole_ms):
            return Choice(None, CROWDED_OUT, predicted)
        if self._options.on_impossible == "error":
            return Choice(None, REFUSED, predicted)
        return Choice(cheapest, IMPOSSIBLE, predicted)

    def settle(self, choice: Choice, met: bool) -> None:
        """What became of the tick; spaces the trials."""
        if choice.verdict == TRIAL:
            self._every = _TRIAL_EVERY if met else min(2 * self._every, _TRIAL_EVERY_MOST)
        if choice.verdict == TRIAL or not met:
            self._wait = self._every
        else:
            self._wait = max(self._wait - 1, 0)

    def _fits(self, predicted_ms: float, left_ms: float) -> bool:
        return predicted_ms * (1 + self._options.margin) <= left_ms

    def _worth_a_try(self, point: OperatingPoint, left_ms: float) -> bool:
        hope = self._tracker.hope_ms(point)
        return self._options.trials and self._wait == 0 and hope is not None and self._fits(hope, left_ms)
