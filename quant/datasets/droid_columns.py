"""State columns of DROID's LeRobot conversions: joint angles and gripper of every row of an episode.

Columns are as the conversion names them, or one `observation.state` of seven angles and the gripper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motedge.errors import DataError
from motedge.quant.datasets.franka import flange_pose, follow_pose, pose_from_xyz_rpy

FloatArray = NDArray[np.float64]
STATE = "observation.state"
JOINTS, GRIPPER = "observation.state.joint_positions", "observation.state.gripper_position"
POSE, GRIPPER_COMMAND = "observation.state.cartesian_position", "action.gripper_position"
# Other names of the same columns
_ALIASES = {JOINTS: ("observation.state.joint_position",), GRIPPER: (), POSE: (), GRIPPER_COMMAND: ("action.gripper",)}


@dataclass(frozen=True)
class EpisodeStates:
    """States of one episode, a row a frame."""

    # [N, 7] in rad
    joints: FloatArray
    # [N], fraction closed
    gripper: FloatArray
    # Repairs, in words
    notes: tuple[str, ...]


def read_states(columns: Mapping[str, Any]) -> EpisodeStates:
    """States of the rows of one episode, in order of time.

    Args:
        columns: column name -> list of values, one a row.

    Raises:
        DataError: a column is missing or holds what it should not.
    """
    if STATE in columns:
        state = _array(columns, STATE)
        if state.ndim != 2 or state.shape[1] != 8:
            raise DataError(
                f"column {STATE} has the wrong width",
                expected="8 numbers a row: seven joint angles in rad and the gripper's fraction closed",
                got=list(state.shape[1:]),
            )
        return EpisodeStates(state[:, :7], state[:, 7], ())
    joints, joint_note = _joints(columns)
    gripper, gripper_note = _gripper(columns, len(joints))
    return EpisodeStates(joints, gripper, tuple(filter(None, (joint_note, gripper_note))))


def _joints(columns: Mapping[str, Any]) -> tuple[FloatArray, str]:
    """Joint angles, and a note where they are not simply the recorded ones.

    Some conversions have spread the seven angles of row 0 over the first seven rows and filled the rest with the last
    of them. The measured pose of the flange tells: it fits those seven angles. Later angles are then solved from the
    poses, row by row from the recorded start.
    """
    column = _array(columns, JOINTS)
    if column.ndim == 2 and column.shape[1] == 7:
        return column, ""
    expected = f"7 numbers a row in {JOINTS}"
    if column.ndim != 1 or column.size < 8:
        raise DataError("the data set has no joint state", expected=expected, got=list(column.shape[1:]))
    start, poses = column[:7], _array(columns, POSE)
    spread = bool((column[7:] == column[6]).all())
    if not spread or np.abs(flange_pose(start) - pose_from_xyz_rpy(poses[0])).max() > 1e-4:
        raise DataError("the data set has no joint state", expected=expected, got="one number a row")
    solved = [start]
    try:
        for pose in poses[1:]:
            solved.append(follow_pose(solved[-1], pose_from_xyz_rpy(pose)))
    except ValueError as error:
        raise DataError("the joint state can't be solved from the poses", got=str(error)) from error
    return np.array(solved), "joint angles solved from the measured poses"


def _gripper(columns: Mapping[str, Any], rows: int) -> tuple[FloatArray, str]:
    measured = _array(columns, GRIPPER).reshape(rows)
    if np.ptp(measured) > 0 or not any(name in columns for name in (GRIPPER_COMMAND, *_ALIASES[GRIPPER_COMMAND])):
        return measured, ""
    commanded = _array(columns, GRIPPER_COMMAND).reshape(rows)
    if np.ptp(commanded) == 0:
        return measured, ""
    last = np.concatenate([commanded[:1], commanded[:-1]])
    return last, "gripper as last commanded, its measurement never moves"


def _array(columns: Mapping[str, Any], name: str) -> FloatArray:
    for known in (name, *_ALIASES.get(name, ())):
        if known in columns:
            try:
                return np.array(columns[known], dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise DataError(f"column {known} holds no numbers of one width", got=str(error)) from error
    raise DataError(
        f"the data set has no column {name}", expected=f"{name}, or {STATE}", got=", ".join(sorted(columns))
    )
