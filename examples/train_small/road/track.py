"""A closed road as a centre line: where along and beside it a point lies.

World axes are Box2D's: x, y in metres, yaw in rad, 0 along +y and growing to the left. Forward is (-sin, cos) of the
yaw, right is (cos, sin). `s` is the way along the centre line in metres, `lateral` the distance to its right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from motedge.errors import ContractError

# gymnasium's car_racing.py: TRACK_WIDTH = 40 / SCALE, from the centre to an edge, and one tile's length
HALF_WIDTH_M = 40 / 6.0
TILE_M = 21 / 6.0
STEP_M = 0.5
# Takes the corners out of the polygon of tiles
SMOOTHING_M = 2.0
_BEHIND_M, _AHEAD_M = 12.0, 18.0
Array = NDArray[np.float64]


class Track:
    """The centre line of one road, sampled every `STEP_M` or nearly so."""

    def __init__(self, points: ArrayLike) -> None:
        """Takes the tiles' centres [n, 2] in the order of driving; the last joins the first.

        Raises:
            ContractError: no closed road.
        """
        corners = np.asarray(points, np.float64)
        if corners.ndim != 2 or corners.shape[1:] != (2,) or len(corners) < 8 or not np.isfinite(corners).all():
            raise ContractError("this is no road", expected="finite points [n, 2], n >= 8", got=list(corners.shape))
        line = _smooth(_resample(corners, STEP_M), SMOOTHING_M / STEP_M)
        self.points = _resample(line, STEP_M)
        steps = np.roll(self.points, -1, 0) - self.points
        lengths = np.hypot(*steps.T)
        self.step_m = float(lengths.mean())
        self.length_m = self.step_m * len(self.points)
        ahead = np.roll(self.points, -1, 0) - np.roll(self.points, 1, 0)
        # Forward is (-sin, cos)
        self.yaw: Array = np.unwrap(np.arctan2(-ahead[:, 0], ahead[:, 1]))
        turned = _smooth(np.diff(self.yaw, append=self.yaw[0] + self._full_turn()), SMOOTHING_M / STEP_M)
        # 1/m, positive to the left
        self.curvature: Array = turned / self.step_m

    @classmethod
    def from_tiles(cls, tiles: Sequence[Sequence[float]]) -> Track:
        """Of gymnasium's `env.track`: (alpha, yaw, x, y) a tile."""
        return cls(np.asarray(tiles, np.float64)[:, 2:4])

    def at(self, s: ArrayLike) -> tuple[Array, Array, Array]:
        """Points [..., 2], yaws [...] and curvatures [...] at ways s [...] along the road, round and round."""
        whole = np.asarray(s, np.float64) / self.step_m
        first = np.floor(whole).astype(np.int64)
        part, low = whole - first, first % len(self.points)
        high = (low + 1) % len(self.points)
        points = self.points[low] * (1 - part)[..., None] + self.points[high] * part[..., None]
        yaw_high = self.yaw[high] + np.where(high == 0, self._full_turn(), 0.0)
        return points, self.yaw[low] * (1 - part) + yaw_high * part, self.curvature[low]

    def project(self, points: ArrayLike, near_s: ArrayLike | None = None) -> tuple[Array, Array]:
        """Ways s [n] and laterals [n] of points [n, 2].

        Args:
            points: World points.
            near_s: Where they were a moment ago, [n]: a road may come near itself elsewhere. None: anywhere.
        """
        there = np.asarray(points, np.float64)
        if near_s is None:
            squares = ((there[:, None] - self.points[None]) ** 2).sum(-1)
            s = squares.argmin(1) * self.step_m
        else:
            reach = np.arange(-_BEHIND_M, _AHEAD_M, self.step_m)
            tried = np.asarray(near_s, np.float64)[:, None] + reach
            squares = ((there[:, None] - self.at(tried)[0]) ** 2).sum(-1)
            s = np.take_along_axis(tried, squares.argmin(1)[:, None], 1)[:, 0]
        return self.refine(there, s)

    def refine(self, points: Array, s: Array) -> tuple[Array, Array]:
        """Ways and laterals from ways that are nearly right already."""
        for _ in range(2):
            centre, yaw, curvature = self.at(s)
            sine, cosine = np.sin(yaw), np.cos(yaw)
            beside = points - centre
            lateral = beside[..., 0] * cosine + beside[..., 1] * sine
            along = -beside[..., 0] * sine + beside[..., 1] * cosine
            s = s + along / np.maximum(1 + curvature * lateral, 0.3)
        return s, lateral

    def _full_turn(self) -> float:
        """What the yaw gains in a lap: a full turn to one side."""
        return 2 * np.pi * float(np.sign(self.yaw[-1] - self.yaw[0]) or 1.0)


def _resample(points: Array, step: float) -> Array:
    closed = np.vstack([points, points[:1]])
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    wanted = np.linspace(0, way[-1], max(round(way[-1] / step), 8), endpoint=False)
    return np.stack([np.interp(wanted, way, closed[:, axis]) for axis in (0, 1)], axis=-1)


def _smooth(values: Array, sigma: float) -> Array:
    """A Gaussian along the first axis, round the ends."""
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    return np.asarray(
        sum(w * np.roll(values, shift, 0) for w, shift in zip(weights, range(-reach, reach + 1))), np.float64
    )
