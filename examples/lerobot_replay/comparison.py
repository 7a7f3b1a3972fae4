"""Predicted actions against recorded ones, row by row: the open-loop error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from examples.lerobot_replay.recorded import FloatArray


@dataclass(eq=False)
class Comparison:
    """Collects chunks; rows that are due after the episode's end are left out."""

    field_names: tuple[str, ...]
    # Each [rows, 8]; the recorded ones are NaN where nothing was recorded
    predicted: list[FloatArray] = field(default_factory=list)
    recorded: list[FloatArray] = field(default_factory=list)
    # What standing still would be worth: the state at the observation, [8]
    held: list[FloatArray] = field(default_factory=list)

    def add(self, predicted: FloatArray, recorded: FloatArray, state: FloatArray) -> float:
        """One chunk; returns its mean error of the joints, rad; NaN if nothing of it was recorded."""
        self.predicted.append(predicted)
        self.recorded.append(recorded)
        self.held.append(state)
        return _mean(np.abs(predicted - recorded)[:, :7])

    def to_dict(self, rate_hz: float) -> dict[str, Any]:
        """JSON form; no error is worth much without the one of standing still beside it."""
        recorded = np.stack(self.recorded)
        predicted, held = np.stack(self.predicted), np.stack(self.held)[:, None]
        policy, standing = np.abs(predicted - recorded), np.abs(held - recorded)
        closed = (predicted[..., 7] > 0.5) == (recorded[..., 7] > 0.5)
        there = np.isfinite(recorded[..., 7])
        error, hold = _summary(policy), _summary(standing)
        ratio = error["joints_mean_rad"] / hold["joints_mean_rad"] if hold["joints_mean_rad"] else None
        return {
            "rows_compared": int(there.sum()),
            "error": {**error, "gripper_agrees": float(closed[there].mean()) if there.any() else None},
            "error_of_standing_still": hold,
            "error_over_standing_still": ratio,
            "by_field": {name: _mean(policy[..., at]) for at, name in enumerate(self.field_names)},
            "by_row": [
                {
                    "after_s": round((row + 1) / rate_hz, 6),
                    "joints_mean_rad": _mean(policy[:, row, :7]),
                    "standing_still_rad": _mean(standing[:, row, :7]),
                }
                for row in range(recorded.shape[1])
                if there[:, row].any()
            ],
        }


def _summary(absolute: FloatArray) -> dict[str, float]:
    joints = absolute[..., :7]
    return {
        "joints_mean_rad": _mean(joints),
        "joints_rms_rad": float(np.sqrt(_mean(joints**2))),
        "joints_max_rad": float(np.nanmax(joints)),
        "gripper_mean": _mean(absolute[..., 7]),
    }


def _mean(values: FloatArray) -> float:
    """Of what was recorded."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else float("nan")
