"""Where points in space stand in a picture, and the strip of road that a vehicle's trajectory covers in it.

Space is the camera's at frame 0: x right, y down, z forward, metres. Pictures count columns and rows in pixels from the
middle of the pixel in the upper left corner. Two lenses: "pinhole" keeps straight lines straight; of "equidistant", the
ideal wide-angle lens, the distance from the middle grows with the angle: cameras of 120 degrees across resemble it.

What a trajectory does not tell must be assumed: the lens, and how high above the road the camera is. How far it is
turned down shows in the trajectory itself, since a vehicle moves along the road: see `pitch_from_motion`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from motedge.errors import ContractError, UsageError, closest
from motedge.runtime.actions.poses import check_trajectory
from motedge.runtime.actions.rotations import DoubleArray

LENSES = ("pinhole", "equidistant")
# Assumptions for a front camera behind the windscreen of a car; data sheets and calibrations go before them
HEIGHT_M = 1.4
TRACK_M = 1.8
FIELD_OF_VIEW_DEG = 120.0
# Nearer than this nothing is drawn: it is inside the car
NEAR_M = 0.5


@dataclass(frozen=True)
class Camera:
    """A camera without distortion."""

    columns: int
    rows: int
    # Pixels for a tangent of 1 (pinhole) or an angle of 1 rad (equidistant), along columns and rows
    focal: tuple[float, float]
    # Column and row of the optical axis
    centre: tuple[float, float]
    lens: str = "pinhole"

    def __post_init__(self) -> None:
        if self.lens not in LENSES:
            raise UsageError(f"unknown lens {self.lens!r}", fix=closest(self.lens, LENSES))
        if min(self.columns, self.rows) < 1:
            raise UsageError("a picture has no such size", expected="at least 1 x 1", got=(self.columns, self.rows))
        if not all(math.isfinite(f) and f > 0 for f in self.focal) or not all(map(math.isfinite, self.centre)):
            raise UsageError(
                "the camera is wrong",
                expected="focal lengths above 0 and a centre, in pixels",
                got=f"focal {self.focal}, centre {self.centre}",
            )

    @classmethod
    def from_field_of_view(
        cls, columns: int, rows: int, degrees: float = FIELD_OF_VIEW_DEG, lens: str = "pinhole"
    ) -> Camera:
        """A camera that sees so many degrees from the left to the right edge, its axis in the middle of the picture.

        Raises:
            UsageError: an angle that the lens can't have, or a size or lens that does not exist.
        """
        most = 180.0 if lens == "pinhole" else 360.0
        if not 0 < degrees < most:
            raise UsageError(f"the field of view is wrong for {lens}", expected=f"0 to {most:g} degrees", got=degrees)
        half = math.radians(degrees) / 2
        focal = columns / 2 / (math.tan(half) if lens == "pinhole" else half)
        return cls(columns, rows, (focal, focal), ((columns - 1) / 2, (rows - 1) / 2), lens)

    def project(self, points: ArrayLike) -> tuple[DoubleArray, NDArray[np.bool_]]:
        """Where points [n, 3] stand in the picture.

        Returns:
            Columns and rows fp64 [n, 2], NaN where a point is not in front, and whether a point is in front: at least
            `NEAR_M` of depth. Points in front may still lie beyond the edges.

        Raises:
            ContractError: points of another shape, or not finite.
        """
        space = np.asarray(points, dtype=np.float64)
        if space.ndim != 2 or space.shape[1] != 3 or not np.isfinite(space).all():
            raise ContractError("these are no points", expected="finite numbers [n, 3]", got=list(space.shape))
        front = space[:, 2] >= NEAR_M
        seen = np.full((len(space), 2), np.nan)
        x, y, z = space[front].T
        across = np.hypot(x, y)
        if self.lens == "pinhole":
            factor = 1 / z
        else:
            # Angle over tangent; 1 / z on the axis, where both vanish
            factor = np.where(across > 1e-9, np.arctan2(across, z) / np.maximum(across, 1e-9), 1 / z)
        seen[front] = np.stack([x * factor, y * factor], axis=-1) * self.focal + self.centre
        return seen, front


def pitch_from_motion(trajectory: ArrayLike) -> float:
    """How far the camera is turned down against its way, in rad, by the median over a trajectory [T + 1, 4, 4].

    A camera that looks down a road while it moves along it moves upwards in its own picture, and downwards where the
    vehicle reverses. 0 where it stands still.

    Raises:
        ContractError: no poses, or fewer than two.
    """
    poses = check_trajectory(trajectory)
    step = np.einsum("tji,tj->ti", poses[:-1, :3, :3], np.diff(poses[:, :3, 3], axis=0))
    moving = step[np.linalg.norm(step, axis=-1) > 1e-3]
    if not len(moving):
        return 0.0
    upwards = np.where(moving[:, 2] < 0, moving[:, 1], -moving[:, 1])
    return float(np.median(np.arctan2(upwards, np.linalg.norm(moving[:, ::2], axis=-1))))


def road_strip(
    trajectory: ArrayLike, *, height_m: float = HEIGHT_M, track_m: float = TRACK_M, pitch_rad: float = 0.0
) -> DoubleArray:
    """Where the wheels go: points on the road to the left and right below the camera, fp64 [T + 1, 2, 3].

    Args:
        trajectory: Poses of the camera [T + 1, 4, 4], seen from frame 0.
        height_m: Of the camera above the road.
        track_m: From the left wheels to the right ones.
        pitch_rad: How far the camera is turned down against the road.

    Raises:
        ContractError: no poses, or fewer than two.
        UsageError: a height or a track that is not above 0, or a pitch of a right angle and more.
    """
    poses = check_trajectory(trajectory)
    for name, value in (("height_m", height_m), ("track_m", track_m)):
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} is wrong", expected="a finite number above 0, in m", got=value)
    if not abs(pitch_rad) < math.pi / 2:
        raise UsageError("pitch_rad is wrong", expected="less than a right angle, in rad", got=pitch_rad)
    # Straight down in the camera's own axes: of a camera that looks down, partly ahead
    below = height_m * np.array([0, math.cos(pitch_rad), math.sin(pitch_rad)])
    wheels = below + np.array([[-track_m / 2, 0, 0], [track_m / 2, 0, 0]])
    return np.asarray(np.einsum("tij,wj->twi", poses[:, :3, :3], wheels) + poses[:, None, :3, 3])
