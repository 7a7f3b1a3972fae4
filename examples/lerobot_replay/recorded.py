"""What a LeRobot episode of DROID has recorded: when, in what state, and what the arm was told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from numpy.typing import ArrayLike, NDArray

from motedge.errors import DataError
from motedge.quant.datasets.lerobot import LeRobotDataset

FloatArray = NDArray[np.float64]
REFERENCES = ("auto", "commanded", "measured")
# Joint commands are near where the joints then are. Farther off in the median, rad, they are something else
_FAR_RAD = 0.3
_JOINTS = ("action.joint_position", "action.joint_positions")
_GRIPPER = ("action.gripper_position", "action.gripper")


@dataclass(frozen=True, eq=False)
class RecordedEpisode:
    """Rows of one episode, in order of time."""

    # [N], s from its start
    times_s: FloatArray
    # [N, 8]: seven joints in rad, and the gripper's fraction closed
    states: FloatArray
    # When each row of `actions` is to be reached, s: [M]
    due_s: FloatArray
    # [M, 8]
    actions: FloatArray
    # "commanded", or "measured": where the arm then was
    reference: str
    notes: tuple[str, ...]

    @property
    def rate_hz(self) -> float:
        """Rows a second."""
        return float(1 / np.median(np.diff(self.times_s)))

    def actions_at(self, due_s: ArrayLike) -> FloatArray:
        """The recorded actions for moments [n], between rows by straight lines: [n, 8]; NaN after the episode's end."""
        asked = np.asarray(due_s, np.float64)
        between = [np.interp(asked, self.due_s, column) for column in self.actions.T]
        # A moment that is a row's but for rounding is that row's
        late = asked > self.due_s[-1] + 1e-6
        return np.where(late[:, None], np.nan, np.stack(between, 1))


def read_episode(dataset: LeRobotDataset, group: str, reference: str = "auto") -> RecordedEpisode:
    """Reads an episode's tables; no pictures.

    Args:
        dataset: the data set.
        group: the episode's number, as text.
        reference: what predictions are compared with. "commanded": the action columns, where they hold joint
            positions. "measured": where the arm was one row later. "auto": commanded if it can be had.

    Raises:
        DataError: no such episode, too short a one, times that do not grow, or no usable commands where they are asked
            for.
    """
    table = dataset.columns(group, (*_JOINTS, *_GRIPPER, "action"))
    times_s = np.asarray(table["timestamp"], np.float64)
    if len(times_s) < 2:
        raise DataError(f"episode {group} of {dataset.name} is too short", expected="2 rows or more", got=len(times_s))
    if not (np.diff(times_s) > 0).all():
        at = int(np.flatnonzero(~(np.diff(times_s) > 0))[0])
        raise DataError(
            f"episode {group} of {dataset.name}: time does not go on after row {at}",
            got=f"{times_s[at]:g} s, then {times_s[at + 1]:g} s",
        )
    found = dataset.states(group)
    states = np.column_stack([found.joints, found.gripper])
    if not np.isfinite(states).all():
        raise DataError(f"episode {group} of {dataset.name} holds states that are no numbers", expected="finite ones")
    period_s = float(np.median(np.diff(times_s)))
    commands, why = _commands(table, states)
    if commands is None and reference == "commanded":
        raise DataError(f"episode {group} of {dataset.name} has no commands to compare with", why=why)
    if commands is not None and reference != "measured":
        # A command is given at its row and reached at the next
        return RecordedEpisode(times_s, states, times_s + period_s, commands, "commanded", found.notes)
    notes = (*found.notes, f"compared with where the arm then was: {why}") if why else found.notes
    return RecordedEpisode(times_s, states, times_s, states, "measured", notes)


def _commands(table: Mapping[str, Any], states: FloatArray) -> tuple[Optional[FloatArray], str]:
    """[N, 8] of the action columns, or None and why not."""
    joints, gripper = (next((table[name] for name in names if name in table), None) for names in (_JOINTS, _GRIPPER))
    try:
        if joints is not None and gripper is not None:
            commands = np.column_stack([np.array(joints, np.float64), np.array(gripper, np.float64)])
        elif "action" in table:
            commands = np.array(table["action"], np.float64)
        else:
            return None, "there are no action columns"
    except (TypeError, ValueError):
        return None, "the action columns hold no numbers of one width"
    if commands.ndim != 2 or commands.shape[1] != 8:
        return None, f"the action columns hold {commands.shape[-1]} numbers a row, not seven joints and a gripper"
    if not np.isfinite(commands).all():
        return None, "the action columns hold NaN"
    far = float(np.median(np.abs(commands[:-1, :7] - states[1:, :7])))
    if far > _FAR_RAD:
        return None, f"the action columns hold no joint positions: {far:.2f} rad from the arm's in the median"
    return commands, ""
