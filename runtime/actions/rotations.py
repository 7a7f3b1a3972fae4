"""Rotations of 3-D space: matrices from and to the six numbers that Cosmos 3 writes, from quaternions and angles.

The six numbers are the first two columns of the matrix, one after the other (Zhou et al. 2019,
https://arxiv.org/abs/1812.07035). What a model writes is not quite orthonormal, so that reading needs a rule: by
Gram-Schmidt, as in that paper, the first column keeps its direction; by the nearest rotation (singular values), as
cosmos-framework at 5eee9ed decodes, no column is preferred. Of sound input both make the same. All arithmetic is fp64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from motedge.errors import ContractError, UsageError, closest

DoubleArray = NDArray[np.float64]
RULES = ("gram-schmidt", "nearest")
# Columns shorter than this, or closer to parallel (sine of their angle), do not tell a rotation
DEGENERATE = 1e-6
# How far a matrix may be from orthonormal: what fp32 leaves of a product of many
ORTHONORMAL = 1e-3


def matrix_from_rot6d(numbers: ArrayLike, rule: str = "gram-schmidt") -> DoubleArray:
    """Rotation matrices fp64 [..., 3, 3] of numbers [..., 6].

    Args:
        numbers: First column, then second column.
        rule: "gram-schmidt" or "nearest".

    Raises:
        ContractError: another shape, not finite, or columns that are zero or parallel.
        UsageError: an unknown rule.
    """
    if rule not in RULES:
        raise UsageError(f"unknown rule {rule!r}", fix=closest(rule, RULES))
    six = _finite("rotations of six numbers", numbers, 6)
    first, second = six[..., :3], six[..., 3:]
    length, other = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
    area = np.linalg.norm(np.cross(first, second), axis=-1)
    # Zero columns make an area of zero, so that they need no test of their own beyond the length
    unsound = (np.minimum(length, other) < DEGENERATE) | (area <= DEGENERATE * length * other)
    if unsound.any():
        where = tuple(int(i) for i in np.argwhere(unsound)[0])
        raise ContractError(
            f"row {list(where)} is no rotation" if where else "these six numbers are no rotation",
            expected="two columns that are neither zero nor parallel",
            got=np.round(six[where], 6).tolist(),
            why="the third column is made from the first two",
        )
    if rule == "nearest":
        return _nearest(first, second)
    x = first / length[..., None]
    y = second - (x * second).sum(-1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def rot6d_from_matrix(matrices: ArrayLike) -> DoubleArray:
    """The first two columns, fp64 [..., 6], of rotation matrices [..., 3, 3].

    Raises:
        ContractError: another shape, not finite, or not rotations.
    """
    sound = check_rotation(matrices)
    return np.concatenate([sound[..., :, 0], sound[..., :, 1]], axis=-1)


def matrix_from_quaternion(quaternions: ArrayLike) -> DoubleArray:
    """Rotation matrices fp64 [..., 3, 3] of quaternions [..., 4] in the order x, y, z, w, of any length but zero.

    Raises:
        ContractError: another shape, not finite, or of length zero.
    """
    four = _finite("quaternions", quaternions, 4)
    length = np.linalg.norm(four, axis=-1, keepdims=True)
    if (length < DEGENERATE).any():
        raise ContractError("a quaternion is zero", expected="length 1", why="it has no direction")
    x, y, z, w = np.moveaxis(four / length, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def matrix_from_euler_xyz(angles: ArrayLike) -> DoubleArray:
    """Rotation matrices fp64 [..., 3, 3] of angles [..., 3] in rad about the fixed axes x, then y, then z.

    Raises:
        ContractError: another shape, or not finite.
    """
    roll, pitch, yaw = np.moveaxis(_finite("angles", angles, 3), -1, 0)
    return _about(2, yaw) @ _about(1, pitch) @ _about(0, roll)


def check_rotation(matrices: ArrayLike) -> DoubleArray:
    """The matrices [..., 3, 3] as fp64, once they are known to be rotations to within `ORTHONORMAL`.

    Raises:
        ContractError: another shape, not finite, not orthonormal, or a reflection.
    """
    sound = np.asarray(matrices, dtype=np.float64)
    if sound.shape[-2:] != (3, 3):
        raise ContractError("rotation matrices have the wrong shape", expected="[..., 3, 3]", got=list(sound.shape))
    if not np.isfinite(sound).all():
        raise ContractError("rotation matrices hold NaN or infinity", expected="finite numbers")
    error = np.abs(np.swapaxes(sound, -1, -2) @ sound - np.eye(3)).max(initial=0.0)
    if error > ORTHONORMAL or (np.linalg.det(sound) < 0).any():
        raise ContractError(
            "these matrices are no rotations",
            expected=f"orthonormal to {ORTHONORMAL:g}, of determinant +1",
            got="a reflection" if error <= ORTHONORMAL else f"off by {error:.3g}",
            fix="check the order of rows and columns; make them orthonormal with matrix_from_rot6d",
        )
    return sound


def _nearest(first: DoubleArray, second: DoubleArray) -> DoubleArray:
    """The rotation nearest to [first, second, first x second], fp64 [..., 3, 3]."""
    left, _, right = np.linalg.svd(np.stack([first, second, np.cross(first, second)], axis=-1))
    # The third column makes the determinant positive, so that no reflection can come out
    return np.asarray(left @ right)


def _about(axis: int, angle: DoubleArray) -> DoubleArray:
    made = np.zeros((*angle.shape, 3, 3))
    one, two = (axis + 1) % 3, (axis + 2) % 3
    made[..., axis, axis] = 1
    made[..., one, one] = made[..., two, two] = np.cos(angle)
    made[..., two, one] = np.sin(angle)
    made[..., one, two] = -made[..., two, one]
    return made


def _finite(what: str, values: ArrayLike, width: int) -> DoubleArray:
    sound = np.asarray(values, dtype=np.float64)
    if sound.ndim < 1 or sound.shape[-1] != width:
        raise ContractError(f"{what} have the wrong shape", expected=f"[..., {width}]", got=list(sound.shape))
    if not np.isfinite(sound).all():
        raise ContractError(f"{what} hold NaN or infinity", expected="finite numbers")
    return sound
