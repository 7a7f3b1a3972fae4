"""Kinematics of a Franka Panda: where its joints are for given angles, and angles for a given pose of the flange."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[Any]

# Craig's parameters a (m), d (m), alpha (rad) of each joint (https://frankarobotics.github.io/docs/control_parameters.html)
_CHAIN = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
)
_FLANGE = 0.107  # m, from the last joint
_FINGERTIPS = 0.16  # m, from the flange; a Robotiq 2F-85, nearly


def _frames(joints: FloatArray) -> list[FloatArray]:
    frame = np.eye(4)
    frames = [frame]
    for (a, d, alpha), theta in zip(_CHAIN, joints):
        ca, sa, ct, st = np.cos(alpha), np.sin(alpha), np.cos(theta), np.sin(theta)
        step = np.array(
            [[ct, -st, 0, a], [st * ca, ct * ca, -sa, -d * sa], [st * sa, ct * sa, ca, d * ca], [0, 0, 0, 1]]
        )
        frame = frame @ step
        frames.append(frame)
    return frames


def joint_origins(joints: FloatArray) -> FloatArray:
    """Positions [9, 3] in m of the base, the joints and the flange, for 7 angles in rad."""
    frames = _frames(joints)
    flange = frames[-1] @ np.array([0, 0, _FLANGE, 1])
    return np.array([frame[:3, 3] for frame in frames] + [flange[:3]])


def gripper_pose(joints: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The point between the fingertips, [3] in m, and the hand's axes [3, 3] as rows: x, opening, approach."""
    last = _frames(joints)[-1]
    turn = np.pi / 4  # Franka's hand sits at 45 degrees to the last joint
    c, s = np.cos(turn), np.sin(turn)
    axes = (last[:3, :3] @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])).T
    return last[:3, 3] + (_FLANGE + _FINGERTIPS) * axes[2], axes


def flange_pose(joints: FloatArray) -> FloatArray:
    """Pose [4, 4] of the flange in the frame of the base, m."""
    pose = _frames(joints)[-1].copy()
    pose[:3, 3] += _FLANGE * pose[:3, 2]
    return pose


def pose_from_xyz_rpy(values: FloatArray) -> FloatArray:
    """Pose [4, 4] of DROID's six numbers: position in m, then roll, pitch, yaw about fixed axes in rad."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(values[3:]), np.sin(values[3:])
    pose = np.eye(4)
    pose[:3, :3] = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    pose[:3, 3] = values[:3]
    return pose


def follow_pose(joints: FloatArray, target: FloatArray) -> FloatArray:
    """Angles [7] near `joints` that bring the flange to `target` [4, 4]; damped least squares.

    Seven joints have one freedom more than a pose; among all solutions the nearest to `joints` is taken.

    Raises:
        ValueError: no solution nearby.
    """
    joints = joints.copy()
    for _ in range(50):
        frames, pose = _frames(joints)[1:], flange_pose(joints)
        turn = target[:3, :3] @ pose[:3, :3].T
        error = np.concatenate(
            [
                target[:3, 3] - pose[:3, 3],
                0.5 * np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]),
            ]
        )
        if np.abs(error).max() < 1e-7:
            return joints
        axes = np.array([frame[:3, 2] for frame in frames])
        arms = pose[:3, 3] - np.array([frame[:3, 3] for frame in frames])
        jacobian = np.concatenate([np.cross(axes, arms), axes], axis=1).T
        joints += jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(6), error)
    raise ValueError("the arm can't follow that pose")
