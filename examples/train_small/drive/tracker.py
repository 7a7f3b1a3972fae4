"""Follows a chunk of the policy: pure pursuit of its places, its speeds in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from examples.train_small.road.expert import RATE_HZ, planar_trajectory, pursue
from examples.train_small.road.track import Array
from motedge.errors import ContractError

# As the expert looks ahead
_AHEAD_M, _AHEAD_S = 3.0, 0.35
# Rows whose mean is the speed: a single one carries the sampler's noise
_SPEED_ROWS = 4
_STANDING_M_S = 0.3


class ChunkTracker:
    """One chunk, from the pose at which its picture was taken."""

    def __init__(self, rows: ArrayLike, pose: Array) -> None:
        """Takes rows [T, 9] in metres and the pose (x, y, yaw) of row 0's start.

        Raises:
            ContractError: rows of another width, none, or not finite.
        """
        nine = np.asarray(rows, np.float64)
        if nine.ndim != 2 or nine.shape[1] != 9 or not len(nine) or not np.isfinite(nine).all():
            raise ContractError("this is no chunk to follow", expected="finite numbers [T, 9]", got=list(nine.shape))
        right, ahead = planar_trajectory(nine)[:, :2].T
        sine, cosine = np.sin(pose[2]), np.cos(pose[2])
        self._places = pose[:2] + np.stack([right * cosine - ahead * sine, right * sine + ahead * cosine], -1)
        self._speeds = np.maximum(np.sign(nine[:, 2]) * np.hypot(nine[:, 0], nine[:, 2]), 0) * RATE_HZ
        steps = np.hypot(*np.diff(self._places, axis=0).T)
        self._way = np.concatenate([[0.0], np.cumsum(steps)])

    def command(self, pose: Array, elapsed_s: float) -> tuple[float, float]:
        """Curvature (1/m, positive to the left) and speed (m/s) for now.

        Args:
            pose: Where the car is.
            elapsed_s: Since the picture was taken. After the last row the car is to stand.
        """
        row = int(elapsed_s * RATE_HZ + 1e-6)
        if row >= len(self._speeds):
            return self._steer(pose, 0.0), 0.0
        speed = float(self._speeds[row : row + _SPEED_ROWS].mean())
        if speed < _STANDING_M_S:
            return 0.0, 0.0
        return self._steer(pose, speed), speed

    def _steer(self, pose: Array, speed: float) -> float:
        if self._way[-1] < 0.5:
            return 0.0
        nearest = int(((self._places - pose[:2]) ** 2).sum(-1).argmin())
        wanted = self._way[nearest] + _AHEAD_M + _AHEAD_S * speed
        aim = np.array([np.interp(wanted, self._way, self._places[:, axis]) for axis in (0, 1)])
        if wanted > self._way[-1]:
            # Straight on from the end, in the direction of its last part
            last = self._places[-1] - self._places[-4 if len(self._places) > 4 else 0]
            aim = aim + last / max(float(np.hypot(*last)), 1e-6) * (wanted - self._way[-1])
        return float(pursue(pose[None], aim[None])[0])
