"""Joint angles and gripper under the names that conversions give them, and what is not taken for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from motedge.errors import DataError
from motedge.quant.datasets.droid_columns import (
    GRIPPER,
    GRIPPER_COMMAND,
    JOINTS,
    POSE,
    STATE,
    read_states,
    state_columns,
)
from motedge.quant.datasets.franka import flange_pose

ROWS = 10
ANGLES = np.array([[0.1 + 0.01 * row, -0.4, 0.4, -2.4, 0.0, 2.0, 0.6] for row in range(ROWS)])
CLOSED = np.linspace(0, 0.9, ROWS)
DROID_AXES = (*(f"joint_{number}" for number in range(7)), "gripper")
LIBERO_AXES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper", "gripper")
PADDED_AXES = ("x", "y", "z", "roll", "pitch", "yaw", "pad", "gripper")


def _xyz_rpy(pose: np.ndarray) -> list[float]:
    """Position, and angles about fixed axes, of a pose [4, 4]."""
    turn = pose[:3, :3]
    roll, pitch = np.arctan2(turn[2, 1], turn[2, 2]), -np.arcsin(turn[2, 0])
    return [*pose[:3, 3], roll, pitch, np.arctan2(turn[1, 0], turn[0, 0])]


def _spread(**changed: Any) -> dict[str, Any]:
    """The conversion that keeps row 0's angles in the first seven rows."""
    column = [*ANGLES[0], *[ANGLES[0, 6]] * (ROWS - 7)]
    poses = [_xyz_rpy(flange_pose(angles)) for angles in ANGLES]
    return {JOINTS: column, POSE: poses, GRIPPER: list(CLOSED), **changed}


@pytest.mark.parametrize(
    "columns",
    [
        {JOINTS: ANGLES.tolist(), GRIPPER: CLOSED.tolist()},
        {"observation.state.joint_position": ANGLES.tolist(), GRIPPER: [[value] for value in CLOSED]},
        {"joint_position": ANGLES.tolist(), "gripper_position": CLOSED.tolist()},
        {STATE: np.column_stack([ANGLES, CLOSED]).tolist()},
        {STATE: ANGLES.tolist(), "gripper": CLOSED.tolist()},
        {**{f"joint_{n + 1}": ANGLES[:, n].tolist() for n in range(7)}, "gripper": CLOSED.tolist()},
        {**{f"observation.state.joint_{n}": ANGLES[:, n].tolist() for n in range(7)}, GRIPPER: CLOSED.tolist()},
    ],
    ids=["positions", "position", "short", "vector", "vector of 7", "joint_1..7", "joint_0..6"],
)
def test_forms_of_the_same_state(columns: dict[str, Any]) -> None:
    assert sorted(state_columns([*columns, "action", "is_first", "joint_torque"])) == sorted(columns)
    states = read_states(columns)
    np.testing.assert_array_equal(states.joints, ANGLES)
    np.testing.assert_array_equal(states.gripper, CLOSED)
    assert states.notes == ()


def test_named_axes_decide_about_a_vector_of_eight() -> None:
    """LIBERO and many others keep the hand's pose in a column of the same name and width."""
    state = np.column_stack([ANGLES, CLOSED]).tolist()
    np.testing.assert_array_equal(read_states({STATE: state}, axes=DROID_AXES).joints, ANGLES)
    for axes in (LIBERO_AXES, PADDED_AXES):
        with pytest.raises(DataError, match="holds no joint angles") as caught:
            read_states({STATE: state}, axes=axes)
        assert "roll" in str(caught.value)
    with pytest.raises(DataError, match="holds no joint angles"):
        read_states({STATE: state}, axes=("gripper", *DROID_AXES[:7]))
    both = {STATE: state, JOINTS: (ANGLES + 0.1).tolist(), GRIPPER: CLOSED.tolist()}
    np.testing.assert_array_equal(read_states(both, axes=LIBERO_AXES).joints, ANGLES + 0.1)


@pytest.mark.parametrize("axes", [None, tuple(f"motor_{number}" for number in range(8))])
def test_a_pose_without_names_is_not_a_franka(axes: tuple[str, ...] | None) -> None:
    pose = [[0.5, 0.1, 0.3, 3.1 * (-1) ** row, 0.0, 0.1, 0.02, -0.02] for row in range(ROWS)]
    with pytest.raises(DataError, match="no joint angles of a Franka") as caught:
        read_states({STATE: pose}, axes=axes)
    assert "joint 4" in str(caught.value)


def test_spread_angles_are_solved() -> None:
    states = read_states(_spread())
    assert states.notes == ("joint angles solved from the measured poses",)
    for solved, angles in zip(states.joints, ANGLES, strict=True):
        np.testing.assert_allclose(flange_pose(solved), flange_pose(angles), atol=1e-6)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (_spread(**{POSE: [[0.0] * 5] * ROWS}), f"{POSE} has the wrong width"),
        (_spread(**{POSE: [[0.3, 0, 0.5, 0, 0, 0]] * ROWS}), "no joint state"),
        ({k: v for k, v in _spread().items() if k != POSE}, f"no column {POSE}"),
        (_spread(**{JOINTS: list(range(ROWS))}), "no joint state"),
        (_spread(**{POSE: [_spread()[POSE][0], *[[9.0, 0, 0, 0, 0, 0]] * (ROWS - 1)]}), "can't be solved"),
        ({JOINTS: ANGLES.tolist()}, f"no column {GRIPPER}"),
        ({JOINTS: ANGLES.tolist(), GRIPPER: [[0.0, 1.0]] * ROWS}, f"{GRIPPER} has the wrong width"),
        ({JOINTS: ANGLES.tolist(), GRIPPER: [0.0] * ROWS, GRIPPER_COMMAND: [[0, 1]] * ROWS}, "wrong width"),
        ({STATE: [0.0] * ROWS}, "wrong width"),
        ({STATE: [[0.0] * 8, [0.0] * 7]}, "no numbers of one width"),
        ({}, f"no column {JOINTS}"),
    ],
)
def test_what_is_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_states(columns, names=[*columns, "elsewhere"])
    if "no column" in message:
        assert "elsewhere" in str(caught.value)


def test_a_gripper_that_never_moves() -> None:
    commanded = [0.0, 0.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    columns = {JOINTS: ANGLES.tolist(), GRIPPER: [0.0] * ROWS, GRIPPER_COMMAND: commanded}
    states = read_states(columns)
    assert states.gripper.tolist() == [0.0, *commanded[:-1]]
    assert states.notes == ("gripper as last commanded, its measurement never moves",)
    assert read_states({**columns, GRIPPER: CLOSED.tolist()}).gripper.tolist() == CLOSED.tolist()
    assert read_states({**columns, GRIPPER_COMMAND: [0.0] * ROWS}).notes == ()
