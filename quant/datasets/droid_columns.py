"""State columns of DROID's LeRobot conversions: joint angles and gripper of every row of an episode.

In this order: seven angles in one column, one column an angle, `observation.state` of seven angles with or without the
gripper, and at last angles that are solved from the measured poses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.errors import DataError
from motedge.quant.datasets.franka import flange_pose, follow_pose, pose_from_xyz_rpy

FloatArray = NDArray[np.float64]
STATE = "observation.state"
JOINTS, GRIPPER = "observation.state.joint_positions", "observation.state.gripper_position"
POSE, GRIPPER_COMMAND = "observation.state.cartesian_position", "action.gripper_position"
# Other names of the same columns
_ALIASES = {
    STATE: (),
    JOINTS: ("observation.state.joint_position", "observation.joint_position", "joint_positions", "joint_position"),
    GRIPPER: ("observation.gripper_position", "gripper_position", "observation.state.gripper", "gripper"),
    POSE: ("observation.cartesian_position", "cartesian_position"),
    GRIPPER_COMMAND: ("action.gripper",),
}
_ONE_JOINT = re.compile(r"(?:observation\.(?:state\.)?)?joint_?([0-7])")
# Joint 4 of a Franka can't be straight: its range is -3.07 to -0.07 rad
# (https://frankarobotics.github.io/docs/control_parameters.html), here with some slack
_ELBOW, _ELBOW_RANGE = 3, (-3.2, 0.05)


@dataclass(frozen=True)
class EpisodeStates:
    """States of one episode, a row a frame."""

    # [N, 7] in rad
    joints: FloatArray
    # [N], fraction closed
    gripper: FloatArray
    # Repairs, in words
    notes: tuple[str, ...]


def state_columns(names: Collection[str]) -> list[str]:
    """Those of a table's columns that `read_states` looks at."""
    known = {name for first, others in _ALIASES.items() for name in (first, *others)}
    return [name for name in names if name in known or _ONE_JOINT.fullmatch(name)]


def read_states(
    columns: Mapping[str, Any], *, names: Collection[str] = (), axes: Optional[Sequence[str]] = None
) -> EpisodeStates:
    """States of the rows of one episode, in order of time.

    Args:
        columns: column name -> list of values, one a row.
        names: every column of the table, for messages.
        axes: what the numbers of observation.state are called, if that is known.

    Raises:
        DataError: a column is missing or holds what it should not.
    """
    joints, note = _find(columns, JOINTS), ""
    if joints is None or joints.shape[1:] != (7,):
        single = _single_joints(columns)
        state = _find(columns, STATE) if single is None else None
        problem = None if state is None else _not_joints(state, axes)
        if single is not None:
            joints = single
        elif state is not None and problem is None:
            if state.shape[1] == 8:
                return EpisodeStates(state[:, :7], state[:, 7], ())
            joints = state
        elif joints is not None:
            joints, note = _solve(joints, columns, names)
        elif problem is not None:
            raise problem
        else:
            raise _missing(JOINTS, names or columns)
    gripper, gripper_note = _gripper(columns, names, len(joints))
    return EpisodeStates(joints, gripper, tuple(filter(None, (note, gripper_note))))


def _not_joints(state: FloatArray, axes: Optional[Sequence[str]]) -> Optional[DataError]:
    """Why a state vector is not taken for joint angles. Many data sets keep the hand's pose there, of equal width."""
    expected = "seven joint angles in rad and the gripper's fraction closed, or the angles alone"
    if state.ndim != 2 or state.shape[1] not in (7, 8):
        got = f"{state.shape[1]} numbers a row" if state.ndim == 2 else "one number a row"
        return DataError(f"column {STATE} has the wrong width", expected=expected, got=got)
    if axes is not None and len(axes) == state.shape[1]:
        words = {word for axis in axes for word in re.split(r"[^a-z0-9]+", axis.lower())}
        if {"x", "y", "z"} <= words or any("gripper" in axis.lower() for axis in axes[:7]):
            return DataError(f"column {STATE} holds no joint angles", expected=expected, got=", ".join(axes))
        if all("joint" in axis.lower() for axis in axes[:7]):
            return None
    low, high = _ELBOW_RANGE
    elbow = state[:, _ELBOW]
    if (elbow < low).any() or (elbow > high).any():
        return DataError(
            f"column {STATE} holds no joint angles of a Franka",
            expected=f"{expected}; joint 4 between {low:g} and {high:g} rad",
            got=f"number 4 of a row between {elbow.min():.2f} and {elbow.max():.2f}",
            why="data sets that keep the hand's pose in this column have as many numbers a row",
        )
    return None


def _single_joints(columns: Mapping[str, Any]) -> Optional[FloatArray]:
    """[N, 7] of seven columns that are numbered from 0 or from 1; None where there are no such."""
    found = {int(match[1]): name for name in columns if (match := _ONE_JOINT.fullmatch(name))}
    for first in (0, 1):
        if sorted(found) == list(range(first, first + 7)):
            joints = [_numbers(columns, found[number]) for number in sorted(found)]
            return np.stack([column.reshape(len(column), -1)[:, 0] for column in joints], 1)
    return None


def _solve(column: FloatArray, columns: Mapping[str, Any], names: Collection[str]) -> tuple[FloatArray, str]:
    """Joint angles of a column that holds one number a row, and what was done.

    Some conversions have spread the seven angles of row 0 over the first seven rows and filled the rest with the last
    of them. The measured pose of the flange tells: it fits those seven angles. Later angles are then solved from the
    poses, row by row from the recorded start.
    """
    expected = f"7 numbers a row in {JOINTS}"
    if column.ndim != 1 or column.size < 8:
        raise DataError("the data set has no joint state", expected=expected, got=list(column.shape[1:]))
    start, poses = column[:7], _need(columns, POSE, names)
    if poses.shape != (len(column), 6):
        raise DataError(f"column {POSE} has the wrong width", expected="x, y, z in m, roll, pitch, yaw in rad")
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


def _gripper(columns: Mapping[str, Any], names: Collection[str], rows: int) -> tuple[FloatArray, str]:
    measured = _one_a_row(_need(columns, GRIPPER, names), GRIPPER, rows)
    commanded = _find(columns, GRIPPER_COMMAND)
    if np.ptp(measured) > 0 or commanded is None:
        return measured, ""
    commanded = _one_a_row(commanded, GRIPPER_COMMAND, rows)
    if np.ptp(commanded) == 0:
        return measured, ""
    last = np.concatenate([commanded[:1], commanded[:-1]])
    return last, "gripper as last commanded, its measurement never moves"


def _one_a_row(values: FloatArray, name: str, rows: int) -> FloatArray:
    if values.size != rows:
        raise DataError(f"column {name} has the wrong width", expected="one number a row", got=list(values.shape[1:]))
    return values.reshape(rows)


def _need(columns: Mapping[str, Any], name: str, names: Collection[str]) -> FloatArray:
    found = _find(columns, name)
    if found is None:
        raise _missing(name, names or columns)
    return found


def _missing(name: str, names: Collection[str]) -> DataError:
    return DataError(f"the data set has no column {name}", expected=f"{name}, or {STATE}", got=", ".join(sorted(names)))


def _find(columns: Mapping[str, Any], name: str) -> Optional[FloatArray]:
    """A column under any of its names; None where there is none."""
    return next((_numbers(columns, known) for known in (name, *_ALIASES[name]) if known in columns), None)


def _numbers(columns: Mapping[str, Any], name: str) -> FloatArray:
    try:
        return np.array(columns[name], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name} holds no numbers of one width", got=str(error)) from error
