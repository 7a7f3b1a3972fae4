"""The DROID action space of the released policies: seven joint positions and a gripper that is counted backwards.

Measured and commanded values are absolute and not normalised: radians, and for the gripper the fraction closed. The
model counts the gripper as the fraction open, so that it is flipped on the way in and out (cosmos-framework at
5eee9ed). Row 0 of the action rows is the current state, clean; rows 1 and on are the actions.
"""

from __future__ import annotations

import numpy as np

from motedge.errors import ContractError
from motedge.runtime.engine import FloatArray

JOINTS = 7
RAW_DIM = JOINTS + 1


def pack_state(joint_position: FloatArray, gripper_position: float, *, rows: int, width: int) -> FloatArray:
    """Action rows fp32 [rows, width] with the state in row 0 and zeros elsewhere.

    Args:
        joint_position: fp32 [7], rad.
        gripper_position: Fraction closed.
        rows: State row and action rows, A.
        width: Width of an action row, Z.
    """
    if joint_position.shape != (JOINTS,) or rows < 2 or width < RAW_DIM:
        raise ContractError(
            "the state does not fit the action rows",
            expected=f"[{JOINTS}] joints into at least 2 rows of at least {RAW_DIM} channels",
            got=f"{joint_position.shape} into {rows} x {width}",
        )
    packed = np.zeros((rows, width), np.float32)
    packed[0, :JOINTS] = joint_position
    packed[0, JOINTS] = np.float32(1) - np.float32(gripper_position)
    return packed


def unpack_actions(rows: FloatArray) -> FloatArray:
    """Actions fp32 [rows - 1, 8] of denoised rows fp32 [rows, width]: state row dropped, gripper flipped back.

    The gripper stays a fraction; the client closes it above 0.5.
    """
    return flip_gripper(rows[1:, :RAW_DIM].astype(np.float32))


def flip_gripper(actions: FloatArray) -> FloatArray:
    """A copy of actions or states fp32 [..., 8] with the gripper counted from the other end: to the model, and back."""
    flipped = actions.copy()
    flipped[..., JOINTS] = np.float32(1) - flipped[..., JOINTS]
    return flipped


def pack_committed(packed: FloatArray, actions: FloatArray) -> None:
    """Writes actions fp32 [n, 8] that will be executed in any case into rows 1 to n of `packed`, gripper flipped.

    Raises:
        ContractError: more of them than rows, another width, or not finite.
    """
    free = len(packed) - 2
    if actions.ndim != 2 or actions.shape[1] != RAW_DIM or len(actions) > free or not np.isfinite(actions).all():
        raise ContractError(
            "these actions can't be committed",
            expected=f"finite numbers, at most {free} rows of {RAW_DIM}: one row at least is to be generated",
            got=f"shape {list(actions.shape)}",
        )
    packed[1 : 1 + len(actions), :RAW_DIM] = flip_gripper(actions)
