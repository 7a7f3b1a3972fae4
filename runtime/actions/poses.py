"""Poses as 4 x 4 matrices, as the nine numbers of an action row, and as trajectories from frame to frame.

A row of nine numbers is the translation and the first two columns of the rotation matrix. A trajectory is written
"backward framewise": row i is the pose of frame i + 1 seen from frame i, `inverse(pose[i]) @ pose[i + 1]`, so that T
rows join T + 1 poses. Cameras and grippers have OpenCV axes in Cosmos 3: x right, y down, z forward. Arithmetic is
fp64, rows are fp32: matrices multiplied up over 60 frames otherwise drift apart.
"""

from __future__ import annotations

from typing import Optional

import numpy as np
from numpy.typing import ArrayLike

from motedge.errors import ContractError
from motedge.runtime.actions.rotations import DoubleArray, check_rotation, matrix_from_rot6d, rot6d_from_matrix
from motedge.runtime.engine import FloatArray

WIDTH = 9


def pose_from_parts(translation: ArrayLike, rotation: ArrayLike) -> DoubleArray:
    """Poses fp64 [..., 4, 4] of translations [..., 3] and rotation matrices [..., 3, 3].

    Raises:
        ContractError: shapes that do not belong together, not finite, or no rotations.
    """
    turned, moved = check_rotation(rotation), np.asarray(translation, dtype=np.float64)
    if moved.shape != turned.shape[:-1]:
        raise ContractError(
            "translations and rotations do not belong together",
            expected=f"translations {list(turned.shape[:-1])}",
            got=list(moved.shape),
        )
    if not np.isfinite(moved).all():
        raise ContractError("translations hold NaN or infinity", expected="finite numbers")
    return _assemble(moved, turned)


def pose_from_row(rows: ArrayLike, rule: str = "gram-schmidt") -> DoubleArray:
    """Poses fp64 [..., 4, 4] of rows [..., 9]; rule: see `matrix_from_rot6d`.

    Raises:
        ContractError: another width, not finite, or no rotation.
        UsageError: an unknown rule.
    """
    nine = np.asarray(rows, dtype=np.float64)
    if nine.ndim < 1 or nine.shape[-1] != WIDTH:
        raise ContractError(
            "pose rows have the wrong width",
            expected="9: translation and two columns of the rotation",
            got=list(nine.shape),
        )
    if not np.isfinite(nine).all():
        raise ContractError("pose rows hold NaN or infinity", expected="finite numbers")
    return _assemble(nine[..., :3], matrix_from_rot6d(nine[..., 3:], rule))


def row_from_pose(poses: ArrayLike) -> FloatArray:
    """Rows fp32 [..., 9] of poses [..., 4, 4].

    Raises:
        ContractError: not poses.
    """
    sound = check_pose(poses)
    return np.concatenate([sound[..., :3, 3], rot6d_from_matrix(sound[..., :3, :3])], axis=-1).astype(np.float32)


def rows_from_trajectory(poses: ArrayLike) -> FloatArray:
    """Backward-framewise rows fp32 [T, 9] of a trajectory [T + 1, 4, 4].

    Raises:
        ContractError: not poses, or fewer than two.
    """
    sound = check_trajectory(poses)
    return row_from_pose(invert_pose(sound[:-1]) @ sound[1:])


def trajectory_from_rows(rows: ArrayLike, start: Optional[ArrayLike] = None, rule: str = "gram-schmidt") -> DoubleArray:
    """The trajectory fp64 [T + 1, 4, 4] that backward-framewise rows [T, 9] tell.

    Args:
        rows: As the model writes them, in metres.
        start: Pose of frame 0, [4, 4]; None: the origin, so that everything is seen from frame 0.
        rule: See `matrix_from_rot6d`.

    Raises:
        ContractError: rows or a start of another shape, not finite, or no rotations.
        UsageError: an unknown rule.
    """
    steps = pose_from_row(rows, rule)
    if steps.ndim != 3:
        raise ContractError("a trajectory has the wrong shape", expected="[T, 9]", got=list(np.shape(rows)))
    poses = np.empty((len(steps) + 1, 4, 4))
    poses[0] = np.eye(4) if start is None else check_pose(start)
    for number, step in enumerate(steps):
        poses[number + 1] = poses[number] @ step
    return poses


def invert_pose(poses: ArrayLike) -> DoubleArray:
    """Inverse poses fp64 [..., 4, 4]; of the rotation the transpose, which is exact where it is orthonormal.

    Raises:
        ContractError: not poses.
    """
    sound = check_pose(poses)
    back = np.swapaxes(sound[..., :3, :3], -1, -2)
    return _assemble(-(back @ sound[..., :3, 3:])[..., 0], back)


def check_pose(poses: ArrayLike) -> DoubleArray:
    """The poses [..., 4, 4] as fp64, once they are known to be rigid motions.

    Raises:
        ContractError: another shape, another last row, not finite, or no rotations.
    """
    sound = np.asarray(poses, dtype=np.float64)
    if sound.shape[-2:] != (4, 4):
        raise ContractError("poses have the wrong shape", expected="[..., 4, 4]", got=list(sound.shape))
    if not np.isfinite(sound).all():
        raise ContractError("poses hold NaN or infinity", expected="finite numbers")
    if not (np.abs(sound[..., 3, :] - [0, 0, 0, 1]) < 1e-6).all():
        raise ContractError(
            "these matrices are no poses",
            expected="0 0 0 1 in the last row",
            why="the translation stands in the last column",
            fix="transpose them if it stands in the last row",
        )
    check_rotation(sound[..., :3, :3])
    return sound


def check_trajectory(poses: ArrayLike) -> DoubleArray:
    """The poses [T + 1, 4, 4] as fp64, once they are known to be a trajectory.

    Raises:
        ContractError: not poses, or fewer than two.
    """
    sound = check_pose(poses)
    if sound.ndim != 3 or len(sound) < 2:
        raise ContractError("this is no trajectory", expected="[T + 1, 4, 4] with T > 0", got=list(sound.shape))
    return sound


def _assemble(translation: DoubleArray, rotation: DoubleArray) -> DoubleArray:
    made = np.zeros((*translation.shape[:-1], 4, 4))
    made[..., :3, :3], made[..., :3, 3], made[..., 3, 3] = rotation, translation, 1
    return made
