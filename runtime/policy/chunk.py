"""What the policy answers: a chunk of actions with names, units, and the accounts of how it came about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from motedge.errors import InternalError, UsageError
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.droid import JOINTS, RAW_DIM

if TYPE_CHECKING:
    from motedge.runtime.reasoned.reasoning import Reasoning

SCHEMA = "motedge.action_chunk/v1"
# "fresh": made from the observation that was given. "held": what is left of an earlier chunk, because no new one was
# there by the deadline
FRESH, HELD = "fresh", "held"
_TABLE_HEAD_ROWS = 8
_JOINT = "joint_position_"


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """Actions for the next moments, one row a control step. The arrays belong to the caller."""

    # fp32 [steps, fields]. A DROID robot's: absolute joint positions in rad, then the gripper's fraction closed; a
    # vehicle's: each pose of its camera seen from the one before, translation in m and two columns of the rotation
    actions: FloatArray
    # Rows a second; row 0 is due `first_row + 1` periods after the observation
    rate_hz: float
    # Name and unit of each column
    field_names: tuple[str, ...]
    units: tuple[str, ...]
    embodiment: str
    # Seed of the initial noise: the same seed and observation give the same chunk
    seed: int
    # Forwards of the generator
    forwards: int
    # Cameras that were not there and seen as black
    missing_views: tuple[str, ...]
    # Stage -> wall time in ms; "total_ms" is from observation to chunk
    timings_ms: Mapping[str, float]
    # Sampler settings, prompt lengths, what was kept from earlier requests
    details: Mapping[str, Any]
    # Where the observation came from, in words
    source: Optional[str] = None
    # FRESH or HELD
    kind: str = FRESH
    # Rows of the chunk as it was made that came before row 0: their time has passed
    first_row: int = 0
    # From the observation that the actions come from to this answer, s; None where nobody measured it
    age_s: Optional[float] = None
    # What the reasoner wrote, where it was asked
    reasoning: Optional[Reasoning] = None

    def __post_init__(self) -> None:
        if self.kind not in (FRESH, HELD) or self.first_row < 0 or (self.kind == FRESH and self.first_row):
            raise InternalError(f"a {self.kind!r} action chunk that begins with row {self.first_row}")
        columns = len(self.field_names)
        if self.actions.ndim != 2 or self.actions.shape[1] != columns or len(self.units) != columns:
            raise InternalError(f"an action chunk of shape {self.actions.shape} with {columns} field names")

    @property
    def joint_position_rad(self) -> FloatArray:
        """Absolute joint positions, fp32 [steps, 7], rad, base to wrist. UsageError: not a DROID robot's chunk."""
        return self._of_a_robot()[:, :JOINTS]

    @property
    def gripper_fraction(self) -> FloatArray:
        """Fraction closed, fp32 [steps]: 0 open, 1 closed. The DROID client closes above 0.5. UsageError likewise."""
        return self._of_a_robot()[:, JOINTS]

    @property
    def time_s(self) -> FloatArray:
        """When each row is due, fp32 [steps], seconds after the observation that the actions come from."""
        return ((np.arange(len(self.actions)) + 1 + self.first_row) / self.rate_hz).astype(np.float32)

    @property
    def finite(self) -> bool:
        """Whether every number is finite. The loop raises otherwise; kept for whoever reads a stored chunk."""
        return bool(np.isfinite(self.actions).all())

    def to_dict(self) -> dict[str, Any]:
        """JSON form; numbers keep all digits that fp32 has."""
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "first_row": self.first_row,
            "age_s": None if self.age_s is None else round(self.age_s, 6),
            "embodiment": self.embodiment,
            "rate_hz": self.rate_hz,
            "fields": [{"name": name, "unit": unit} for name, unit in zip(self.field_names, self.units)],
            "actions": [[float(f"{value:.9g}") for value in row] for row in self.actions.tolist()],
            "seed": self.seed,
            "forwards": self.forwards,
            "missing_views": list(self.missing_views),
            "timings_ms": {name: round(value, 3) for name, value in self.timings_ms.items()},
            "details": dict(self.details),
            "source": self.source,
            **({} if self.reasoning is None else {"reasoning": self.reasoning.to_dict()}),
        }

    def to_json(self) -> str:
        """`to_dict` as text; NaN and infinity are refused, for they are not JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)

    def to_table(self, *, every_row: bool = True) -> str:
        """The actions as a text table with units; with `every_row` false, only the first and the last rows."""
        short, units = (tuple(map(_shortened, names)) for names in (self.field_names, self.units))
        lines = [
            " step   time " + "".join(f"{name:>9}" for name in short),
            "           s " + "".join(f"{unit:>9}" for unit in units),
            "-" * (13 + 9 * len(short)),
        ]
        if self.kind == HELD:
            age = "" if self.age_s is None else f" {self.age_s:.3f} s ago"
            lines.insert(
                0, f"HELD: what is left of the chunk of an observation{age}; {self.first_row} rows have passed"
            )
        count = len(self.actions)
        skipped = not every_row and count > _TABLE_HEAD_ROWS + 1
        for index, (due, row) in enumerate(zip(self.time_s, self.actions)):
            if skipped and _TABLE_HEAD_ROWS - 1 <= index < count - 1:
                if index == _TABLE_HEAD_ROWS - 1:
                    lines.append(f"    ...  {count - _TABLE_HEAD_ROWS} more")
                continue
            lines.append(f"{index + 1 + self.first_row:>5} {due:>6.3f} " + "".join(f"{value:>9.4f}" for value in row))
        return "\n".join(lines)

    def _of_a_robot(self) -> FloatArray:
        if len(self.field_names) != RAW_DIM or not self.field_names[0].startswith(_JOINT):
            raise UsageError(
                f"the actions of {self.embodiment} are no joint positions", got=", ".join(self.field_names)
            )
        return self.actions


def _shortened(name: str) -> str:
    """A name or unit that fits over a column of figures."""
    return name.replace(_JOINT, "q").replace("gripper_position", "gripper").replace("fraction ", "")
