"""The last thing before the robot: no action leaves it that breaks a limit, whatever comes in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import numpy as np
from numpy.typing import NDArray

from motedge.client.axis import AxisState
from motedge.client.envelope_counters import EnvelopeCounters
from motedge.client.envelope_limits import EnvelopeLimits, FieldLimits, load_envelope, read_envelope
from motedge.client.follower import Follower, Step
from motedge.errors import ContractError, UsageError

# Shorter times than this are none: 10 kHz is beyond every controller that takes positions, and below it the third
# differences of doubles are more rounding than jerk
MIN_DT_S = 1e-4
_Row = Union[NDArray[np.floating], Sequence[float]]


@dataclass(frozen=True)
class Verdict:
    """What the robot is to do, and what became of the action that was asked for."""

    # float64 [fields], inside every limit
    action: NDArray[np.float64]
    # "passed", "clamped", "rejected" or "held", as in EnvelopeCounters
    kind: str
    # Field -> cause, for each field that was changed or is why the action was dropped
    causes: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Whether the action is the one that was asked for, bit for bit."""
        return self.kind == "passed"


class ActionEnvelope:
    """Keeps absolute position commands inside limits on position, speed, acceleration and jerk, each field by itself.

    For commands p given out with times h between them, and from a state at rest inside the limits, the backward
    differences v' = (p' - p) / h, a' = (v' - v) / h and (a' - a) / h stay within the limits for every sequence of
    inputs and of h: each step leaves a state that can stop in front of every limit, whatever h comes next (proof in
    braking.py and axis.py). Nothing is added but the rounding of positions to doubles, which differences magnify: with
    e = eps |p|, by 2 e / h in velocity, 4 e / h^2 in acceleration and 8 e / h^3 in jerk, h the shortest of the times.

    What a field does with an action that breaks a limit:

    - clamp: it goes as far towards it as it may, and catches up later without overshooting
    - reject: the whole action is dropped, and the robot brakes; a later plausible one is followed again
    - hold: the whole action is dropped, and the robot brakes and stands until `reset`

    NaN, infinity and times that are none drop the whole action in every mode. Not safe for use from several threads.
    """

    def __init__(self, limits: EnvelopeLimits) -> None:
        self.limits = limits
        self.counters = EnvelopeCounters()
        self._held = False
        # A follower for each field that moves, None for those whose position alone is limited
        self._followers: list[Optional[Follower]] = []
        # What was given out last; of no meaning before the first `reset`
        self._last: NDArray[np.float64] = np.zeros(len(limits.fields))
        self._started = False

    @classmethod
    def for_embodiment(cls, embodiment: str) -> ActionEnvelope:
        """With the limits that motedge ships for an embodiment."""
        return cls(load_envelope(embodiment))

    @classmethod
    def from_file(cls, path: Union[str, Path]) -> ActionEnvelope:
        """With the limits in a TOML file."""
        return cls(read_envelope(path))

    @property
    def held(self) -> bool:
        """Whether the robot stands until `reset`."""
        return self._held

    def reset(self, position: _Row, velocity: Optional[_Row] = None) -> None:
        """Begins at the measured state; needed before the first action, and after a hold.

        Args:
            position: [fields], measured, inside the limits.
            velocity: [fields], measured, units a second; None where the robot stands.

        Raises:
            ContractError: of another length.
            UsageError: outside the limits, or so fast that it can't stop inside them. Nothing is changed then.
        """
        start = self._row(position, "the measured position")
        speeds = self._row(np.zeros_like(start) if velocity is None else velocity, "the measured velocity")
        followers = [
            _begin(field, float(value), float(speed)) for field, value, speed in zip(self.limits.fields, start, speeds)
        ]
        self._followers, self._last, self._held = followers, start.copy(), False
        self._started = True
        self.counters.resets += 1

    def apply(self, action: _Row, dt_s: float) -> Verdict:
        """What to send to the robot instead of, or as, `action`.

        Args:
            action: [fields], absolute positions; any numbers.
            dt_s: Seconds since the last action was sent (since `reset` for the first).

        Raises:
            UsageError: no state was given yet.
            ContractError: the action has another number of fields.
        """
        if not self._started:
            raise UsageError(
                "the envelope does not know where the robot is",
                fix="call reset(measured_position) before the first action",
            )
        row = self._row(action, "the action")
        # Such an action is dropped in every case, be it for another reason
        self.counters.non_finite += not np.isfinite(row).all()
        if not (math.isfinite(dt_s) and dt_s >= MIN_DT_S):
            self.counters.bad_dt += 1
            return self._verdict(self._last, "held" if self._held else "rejected", {})
        causes = self._refusals(row, dt_s)
        if self._held or causes:
            kind = "held" if self._held else "rejected"
            return self._move(None, dt_s, kind, causes)
        return self._move(row, dt_s, "passed", {})

    def _refusals(self, row: NDArray[np.float64], dt_s: float) -> dict[str, str]:
        """Why the action is dropped whole: field -> cause; latches the hold."""
        if self._held:
            return {}
        causes: dict[str, str] = {}
        for index, field in enumerate(self.limits.fields):
            cause = _refusal(field, self._followers[index], float(row[index]), dt_s)
            if cause is not None:
                causes[field.name] = cause
                self._held = self._held or field.on_violation == "hold"
        return causes

    def _move(self, row: Optional[NDArray[np.float64]], dt_s: float, kind: str, causes: dict[str, str]) -> Verdict:
        """Every field one step on, towards `row` or to rest; a field whose position alone is limited rests at once."""
        out = np.empty_like(self._last)
        for index, (field, follower) in enumerate(zip(self.limits.fields, self._followers)):
            target = None if row is None else float(row[index])
            step = self._step(index, field, follower, target, dt_s)
            out[index] = step.state.position
            if step.limit is not None and target is not None:
                kind, causes[field.name] = "clamped", step.limit
                most = self.counters.largest_change
                most[field.name] = max(most.get(field.name, 0.0), abs(step.state.position - target))
        self._last = out
        return self._verdict(out, kind, causes)

    def _step(
        self, index: int, field: FieldLimits, follower: Optional[Follower], target: Optional[float], dt_s: float
    ) -> Step:
        if follower is None:
            wanted = float(self._last[index]) if target is None else target
            inside = min(max(wanted, field.low), field.high)
            return Step(AxisState(inside), None if inside == wanted else "position")
        step = follower.step_to_rest(dt_s) if target is None else follower.step_to(target, dt_s)
        follower.take(step, dt_s, target)
        return step

    def _verdict(self, action: NDArray[np.float64], kind: str, causes: Mapping[str, str]) -> Verdict:
        self.counters.count(kind, causes)
        return Verdict(action.copy(), kind, causes)

    def _row(self, values: _Row, what: str) -> NDArray[np.float64]:
        row = np.asarray(values, dtype=np.float64)
        names = self.limits.names
        if row.shape != (len(names),):
            raise ContractError(
                f"{what} does not fit the envelope of {self.limits.embodiment!r}",
                expected=f"[{len(names)}]: {', '.join(names)}",
                got=f"an array of shape {list(row.shape)}",
            )
        return row


def _begin(field: FieldLimits, position: float, velocity: float) -> Optional[Follower]:
    what = f"the measured {field.name} is no state to begin at"
    if not (field.low <= position <= field.high):
        raise UsageError(
            what,
            expected=f"from {field.low} to {field.high} {field.unit}",
            got=position,
            why="from outside its limits the envelope can't keep them",
            fix="move the robot inside by its own means, or widen the limit",
        )
    if not field.moves:
        return None
    follower = Follower(field.axis(), AxisState(position, velocity))
    if not (math.isfinite(velocity) and follower.can_stop()):
        raise UsageError(
            what,
            expected=f"a velocity from which it can stop between {field.low} and {field.high} {field.unit}",
            got=f"{position} {field.unit} at {velocity} {field.unit}/s",
            fix="stop the robot first",
        )
    return follower


def _refusal(field: FieldLimits, follower: Optional[Follower], target: float, dt_s: float) -> Optional[str]:
    """Why a field's value drops the whole action; None if it does not."""
    if not math.isfinite(target):
        return "non-finite"
    if field.on_violation == "clamp":
        return None
    if follower is None:
        return None if field.low <= target <= field.high else "position"
    return follower.refuses(target, dt_s)
