"""The expert: for a behaviour, the way back to its line on the road and along it, as an `av` chunk.

A plan depends on the pose and the behaviour alone. The car's present speed is not in it, since one picture does not
show it: planned speeds come from the road's bends, and "stop" is to stay where one is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from examples.train_small.road.instructions import BEHAVIOURS
from examples.train_small.road.track import Array, Track
from motedge.errors import UsageError, closest

RATE_HZ = 10.0
ROWS = 16
# Metres to the right of the centre line; a quarter of the road's width is 3.3
LATERAL_M = {"left": -2.6, "right": 2.6, "slow": 0.0, "stop": 0.0}
SPEED_M_S = {"left": 13.0, "right": 13.0, "slow": 5.0, "stop": 0.0}
# Comfort in bends and before them
SIDEWAYS_M_S2, ALONG_M_S2 = 6.0, 4.0
# The car turns in a circle of 7.7 m at full lock (0.4 rad, 3.24 m between the axles)
CURVATURE_MAX = 0.12
_SUBSTEPS = 5


class Expert:
    """Plans on one road."""

    def __init__(self, track: Track) -> None:
        """Works out the speeds along the road for each behaviour."""
        self.track = track
        self._laterals = np.array([LATERAL_M[name] for name in BEHAVIOURS])
        self._speeds = np.stack([_speeds(track, name) for name in BEHAVIOURS])

    def plan(self, poses: ArrayLike, behaviours: ArrayLike, near_s: ArrayLike | None = None) -> NDArray[np.float32]:
        """Chunks fp32 [n, 16, 9] from poses [n, 3] (x, y, yaw) for behaviours int [n] (places in BEHAVIOURS)."""
        pose, what = np.asarray(poses, np.float64), np.asarray(behaviours, np.int64)
        s, _ = self.track.project(pose[:, :2], near_s)
        state = pose.copy()
        rows = np.empty((len(pose), ROWS, 9), np.float32)
        for number in range(ROWS):
            before = state.copy()
            for _ in range(_SUBSTEPS):
                state, s = self._move(state, s, what, 1 / (RATE_HZ * _SUBSTEPS))
            rows[:, number] = planar_rows(before, state)
        return rows

    def command(self, pose: Array, s: Array, what: NDArray[np.int64]) -> tuple[Array, Array, Array, Array]:
        """Curvature (1/m, positive to the left) and speed (m/s) to drive with at poses [n, 3]; s [n] brought up to
        date, and laterals [n].
        """
        s, lateral = self.track.refine(pose[:, :2], s)
        _, road_yaw, _ = self.track.at(s)
        wanted = self._laterals[what]
        index = np.floor(s / self.track.step_m).astype(np.int64) % self._speeds.shape[1]
        askew = np.abs(np.angle(np.exp(1j * (pose[:, 2] - road_yaw))))
        beside = np.maximum(np.abs(lateral - wanted) - 1, 0)
        speed = self._speeds[what, index] / (1 + 0.1 * beside + 0.6 * askew)
        ahead = 3.0 + 0.35 * speed
        aim, yaw, _ = self.track.at(s + ahead)
        aim = aim + wanted[:, None] * np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
        return pursue(pose, aim), speed, s, lateral

    def way(self, s: float, behaviour: int, seconds: float) -> float:
        """Metres along the road that an undisturbed drive on the line leads from `s` on."""
        place = s
        for _ in range(round(seconds * RATE_HZ)):
            index = int(place / self.track.step_m) % self._speeds.shape[1]
            bend = 1 + self.track.curvature[index] * self._laterals[behaviour]
            place += self._speeds[behaviour, index] / RATE_HZ / bend
        return float(place - s)

    def _move(self, pose: Array, s: Array, what: NDArray[np.int64], dt_s: float) -> tuple[Array, Array]:
        curvature, speed, s, _ = self.command(pose, s, what)
        turn = curvature * speed * dt_s
        middle = pose[:, 2] + turn / 2
        step = speed * dt_s
        return np.stack(
            [pose[:, 0] - np.sin(middle) * step, pose[:, 1] + np.cos(middle) * step, middle + turn / 2], -1
        ), s


def behaviour_index(name: str) -> int:
    """The place of a behaviour in BEHAVIOURS.

    Raises:
        UsageError: there is no such behaviour.
    """
    if name not in BEHAVIOURS:
        raise UsageError(f"unknown behaviour {name!r}", fix=closest(name, BEHAVIOURS))
    return BEHAVIOURS.index(name)


def pursue(pose: Array, aim: Array) -> Array:
    """Curvature of the arc from poses [n, 3] through points [n, 2], within what the car can turn."""
    sine, cosine = np.sin(pose[:, 2]), np.cos(pose[:, 2])
    way = aim - pose[:, :2]
    right = way[:, 0] * cosine + way[:, 1] * sine
    return np.clip(-2 * right / np.maximum((way**2).sum(-1), 0.25), -CURVATURE_MAX, CURVATURE_MAX)


def planar_rows(before: Array, after: Array) -> NDArray[np.float32]:
    """Rows fp32 [n, 9] that lead from poses [n, 3] to poses [n, 3], in `av`'s axes: x right, y down, z forward."""
    sine, cosine = np.sin(before[:, 2]), np.cos(before[:, 2])
    way = after[:, :2] - before[:, :2]
    right, forward = way[:, 0] * cosine + way[:, 1] * sine, -way[:, 0] * sine + way[:, 1] * cosine
    # To the right is positive about the axis that points down
    turn = before[:, 2] - after[:, 2]
    zero, one = np.zeros_like(turn), np.ones_like(turn)
    return np.stack([right, zero, forward, np.cos(turn), zero, -np.sin(turn), zero, one, zero], -1).astype(np.float32)


def planar_trajectory(rows: ArrayLike) -> Array:
    """Poses fp64 [T + 1, 3] seen from the first (right m, forward m, turn to the right in rad) of rows [T, 9].

    Only the plane's part of a row is read: what a model writes of up and down, pitch and roll is noise to a car.
    """
    nine = np.asarray(rows, np.float64)
    poses = np.zeros((len(nine) + 1, 3))
    for number, row in enumerate(nine):
        right, forward, yaw = poses[number]
        sine, cosine = np.sin(yaw), np.cos(yaw)
        poses[number + 1] = (
            right + row[0] * cosine + row[2] * sine,
            forward - row[0] * sine + row[2] * cosine,
            yaw + np.arctan2(-row[5], row[3]),
        )
    return poses


def _speeds(track: Track, behaviour: str) -> Array:
    """Speeds [n] along the road, slowed before bends as much as after them."""
    bend = np.abs(track.curvature / np.maximum(1 + track.curvature * LATERAL_M[behaviour], 0.3))
    speeds = np.minimum(SPEED_M_S[behaviour], np.sqrt(SIDEWAYS_M_S2 / np.maximum(bend, 1e-6)))
    gain, count = 2 * ALONG_M_S2 * track.step_m, len(speeds)
    for place in list(range(count)) * 2:
        speeds[place] = min(speeds[place], np.sqrt(speeds[place - 1] ** 2 + gain))
    for place in list(range(count - 1, -1, -1)) * 2:
        speeds[place] = min(speeds[place], np.sqrt(speeds[(place + 1) % count] ** 2 + gain))
    return np.asarray(speeds, np.float64)
