"""How the channels of an action row are made up: building blocks one after another, each with names, units and bounds.

Blocks as cosmos-framework at 5eee9ed puts them together (action_spec.py), written "block", "prefix.block" or, where the
number of channels is free, "block*n": `left.pose9`, `left.grasp`, `joints*7`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from motedge.errors import InternalError, closest
from motedge.runtime.engine import FloatArray

# Unit of what a data set counts in its own way, and of ratios
OWN = "data set's own"
RATIO = "1"
_WRITTEN = re.compile(r"(?:(?P<prefix>[a-z0-9_]+)\.)?(?P<kind>[a-z0-9]+)(?:\*(?P<count>[1-9][0-9]*))?")
_XYZ = ("x", "y", "z")


@dataclass(frozen=True)
class Block:
    """Channels that belong together."""

    # Key of `KINDS`
    kind: str
    # What it belongs to, such as "left"; empty where there is only one
    prefix: str
    # First channel and the one after the last
    start: int
    stop: int

    @property
    def channels(self) -> slice:
        """Where it is in a row."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Layout:
    """The channels of an action row, in order."""

    blocks: tuple[Block, ...]
    fields: tuple[str, ...]
    units: tuple[str, ...]
    # Least and greatest value of each channel that its meaning allows; infinite where it sets none
    bounds: tuple[tuple[float, float], ...]

    @property
    def width(self) -> int:
        """Number of channels."""
        return len(self.fields)

    def find(self, kind: str, prefix: Optional[str] = None) -> tuple[Block, ...]:
        """Blocks of a kind, in order; of one prefix if given."""
        return tuple(b for b in self.blocks if b.kind == kind and prefix in (None, b.prefix))

    def outside(self, actions: FloatArray) -> tuple[str, ...]:
        """Names of the channels of actions [n, width] that somewhere leave their bounds by more than rounding."""
        low, high = np.asarray(self.bounds, np.float64).T
        beyond = ((actions < low - 1e-5) | (actions > high + 1e-5)).any(axis=0)
        return tuple(name for name, wrong in zip(self.fields, beyond) if wrong)


@dataclass(frozen=True)
class _Kind:
    # Names of its channels, and units; of one that is repeated, a single name to be numbered
    names: tuple[str, ...]
    units: tuple[str, ...]
    repeated: bool = False
    bounds: Optional[tuple[tuple[float, float], ...]] = None


_FREE = (-np.inf, np.inf)
# Elements of a rotation matrix
_UNIT = (-1.0, 1.0)
_ROT6D = tuple(f"rot6d_{i}" for i in range(6))
_ROT9D = tuple(f"rot9d_{i}" for i in range(9))
_TIPS = tuple(f"fingertip_{finger}_{axis}" for finger in range(5) for axis in _XYZ)
KINDS = {
    # Pose: translation, then the first two columns of the rotation matrix
    "pose9": _Kind((*_XYZ, *_ROT6D), ("m",) * 3 + (RATIO,) * 6, bounds=(_FREE,) * 3 + (_UNIT,) * 6),
    # Translation as a controller counts it
    "shift3": _Kind(_XYZ, (OWN,) * 3),
    "rot6d": _Kind(_ROT6D, (RATIO,) * 6, bounds=(_UNIT,) * 6),
    # Rotation matrix, row by row
    "rot9d": _Kind(_ROT9D, (RATIO,) * 9, bounds=(_UNIT,) * 9),
    "axisangle": _Kind(tuple(f"axis_angle_{axis}" for axis in _XYZ), ("rad",) * 3),
    # Opening of a gripper: what 0 and 1 mean differs from data set to data set
    "grasp": _Kind(("gripper_position",), (OWN,)),
    # Opening of a gripper as a width
    "width": _Kind(("gripper_width",), ("m",), bounds=((0.0, np.inf),)),
    # Five fingertips in the frame of the wrist
    "fingertips": _Kind(_TIPS, ("m",) * 15),
    # A point of a flat scene
    "plane": _Kind(("x", "y"), (OWN,) * 2),
    "joints": _Kind(("joint_position",), ("rad",), repeated=True),
    # Channels of which only the number is known
    "other": _Kind(("channel",), (OWN,), repeated=True),
}


def layout_from_blocks(written: Sequence[str]) -> Layout:
    """The layout that blocks make, one after another.

    Raises:
        InternalError: a block that does not exist, or a name that comes out twice; layouts are data of the package.
    """
    blocks: list[Block] = []
    fields: list[str] = []
    units: list[str] = []
    bounds: list[tuple[float, float]] = []
    for text in written:
        match = _WRITTEN.fullmatch(text)
        if match is None or match["kind"] not in KINDS:
            raise InternalError(f"no such block: {text!r}; {closest(text, KINDS)}")
        kind, prefix = KINDS[match["kind"]], match["prefix"] or ""
        if kind.repeated != (match["count"] is not None):
            raise InternalError(f"block {text!r}: a number belongs to joints and other, and to nothing else")
        count = int(match["count"] or 1)
        names = [f"{kind.names[0]}_{i}" for i in range(count)] if kind.repeated else kind.names
        blocks.append(Block(match["kind"], prefix, len(fields), len(fields) + len(names)))
        fields += [f"{prefix}_{name}" if prefix else name for name in names]
        units += kind.units * count
        bounds += kind.bounds or (_FREE,) * len(names)
    if len(set(fields)) != len(fields):
        raise InternalError(f"two channels have one name: {', '.join(written)}")
    return Layout(tuple(blocks), tuple(fields), tuple(units), tuple(bounds))
