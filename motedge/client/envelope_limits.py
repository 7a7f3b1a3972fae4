"""The limits of an embodiment's actions, as a TOML file gives them.

embodiment = "my_arm"
on_violation = "clamp"          # the default; "clamp", "reject" or "hold"

[[field]]                       # one a column of an action, in order
name = "joint_position_0"
unit = "rad"
min = -2.8                      # absent: no limit
max = 2.8
max_speed_per_s = 2.0           # the three below need the one above; all absent: position alone is limited
max_acceleration_per_s2 = 10.0
max_jerk_per_s3 = 5000.0
on_violation = "hold"           # absent: the default
"""

from __future__ import annotations

import importlib.resources
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Optional, Union

from motedge.client.axis import UNLIMITED_PER_S, AxisLimits
from motedge.errors import UsageError, closest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODES = ("clamp", "reject", "hold")
_FOLDER = "data/envelopes"


@dataclass(frozen=True)
class FieldLimits:
    """One column of an action; the keys of a [[field]] table."""

    name: str
    # The unit u of everything below
    unit: str
    # Absolute positions, u; None: no limit
    min: Optional[float] = None
    max: Optional[float] = None
    # u/s, u/s2, u/s3, each over 0; None: no limit
    max_speed_per_s: Optional[float] = None
    max_acceleration_per_s2: Optional[float] = None
    max_jerk_per_s3: Optional[float] = None
    # "clamp", "reject" or "hold"
    on_violation: str = "clamp"

    def __post_init__(self) -> None:
        where = f"the limits of the field {self.name!r}"
        if self.on_violation not in MODES:
            raise UsageError(
                f"{where}: unknown on_violation", got=self.on_violation, fix=closest(self.on_violation, MODES)
            )
        rates = {
            "max_speed_per_s": self.max_speed_per_s,
            "max_acceleration_per_s2": self.max_acceleration_per_s2,
            "max_jerk_per_s3": self.max_jerk_per_s3,
        }
        for key, value in rates.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{where}: {key}", expected="a number over 0", got=value)
        for lower, higher in zip(rates, list(rates)[1:]):
            if rates[higher] is not None and rates[lower] is None:
                raise UsageError(f"{where}: {higher} without {lower}", fix=f"give {lower} too")
        ends = [value for value in (self.min, self.max) if value is not None]
        if not all(map(math.isfinite, ends)) or (len(ends) == 2 and not ends[0] < ends[1]):
            raise UsageError(f"{where}: min and max", expected="finite, min below max", got=(self.min, self.max))

    @property
    def moves(self) -> bool:
        """Whether more than the position is limited."""
        return self.max_speed_per_s is not None

    @property
    def low(self) -> float:
        """The least position, u."""
        return -math.inf if self.min is None else float(self.min)

    @property
    def high(self) -> float:
        """The greatest position, u."""
        return math.inf if self.max is None else float(self.max)

    def axis(self) -> AxisLimits:
        """The limits of a field that moves; what is not limited, by a number that is never reached in practice."""
        if self.max_speed_per_s is None:
            raise UsageError(f"the field {self.name!r} has no limit on its speed")
        acceleration = self.max_acceleration_per_s2 or self.max_speed_per_s * UNLIMITED_PER_S
        jerk = self.max_jerk_per_s3 or acceleration * UNLIMITED_PER_S
        return AxisLimits(self.low, self.high, float(self.max_speed_per_s), float(acceleration), float(jerk))


@dataclass(frozen=True)
class EnvelopeLimits:
    """All fields of an embodiment's actions, in order."""

    embodiment: str
    fields: tuple[FieldLimits, ...]

    def __post_init__(self) -> None:
        names = self.names
        if not names or len(set(names)) != len(names):
            raise UsageError(
                f"the envelope of {self.embodiment!r}", expected="fields with names of their own", got=list(names)
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The fields' names, in order."""
        return tuple(field.name for field in self.fields)


def load_envelope(embodiment: str) -> EnvelopeLimits:
    """The limits that motedge ships for an embodiment.

    Raises:
        UsageError: none are shipped; names the closest.
    """
    folder = importlib.resources.files("motedge.client").joinpath(_FOLDER)
    known = {entry.name[: -len(".toml")]: entry for entry in folder.iterdir() if entry.name.endswith(".toml")}
    if embodiment not in known:
        raise UsageError(
            f"no limits are known for the embodiment {embodiment!r}",
            why="limits come from a robot's data sheet and from where it stands",
            fix=f"write a TOML file of your own and read it with read_envelope; {closest(embodiment, known)}",
        )
    return parse_envelope(known[embodiment].read_text(encoding="utf-8"), f"{embodiment}.toml")


def read_envelope(path: Union[str, Path]) -> EnvelopeLimits:
    """The limits in a TOML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the envelope {path} can't be read", why=str(error)) from error
    return parse_envelope(text, str(path))


def parse_envelope(text: str, where: str) -> EnvelopeLimits:
    """The limits in a TOML text; `where` names it in errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML", why=str(error)) from error
    _check_keys(table, {"embodiment": str, "on_violation": str, "field": list}, ("embodiment", "field"), where)
    known = {entry.name: _KINDS.get(entry.name, float) for entry in fields(FieldLimits)}
    columns = []
    for number, entry in enumerate(table["field"]):
        if not isinstance(entry, Mapping):
            raise UsageError(f"{where}: field", expected="[[field]] tables", got=type(entry).__name__)
        _check_keys(entry, known, ("name", "unit"), f"{where}, field {number}")
        columns.append(FieldLimits(**{"on_violation": table.get("on_violation", "clamp"), **entry}))
    return EnvelopeLimits(table["embodiment"], tuple(columns))


_KINDS: Mapping[str, type] = {"name": str, "unit": str, "on_violation": str}


def _check_keys(table: Mapping[str, Any], known: Mapping[str, type], needed: Sequence[str], where: str) -> None:
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}", fix=closest(key, known))
        number = known[key] is float
        if isinstance(value, bool) or not isinstance(value, (int, float) if number else known[key]):
            expected = "a number" if number else known[key].__name__
            raise UsageError(f"{where}: {key}", expected=expected, got=repr(value))
    for key in needed:
        if key not in table:
            raise UsageError(f"{where}: the key {key!r} is missing")
