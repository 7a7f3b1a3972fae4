"""Operating points, best first: the order in which they are given up. From TOML, or from a bundle's settings."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motedge.errors import UsageError, closest
from motedge.files import PathLike
from motedge.runtime.deadline.operating_point import OperatingPoint
from motedge.runtime.request import SamplerSettings
from motedge.runtime.schedule import FlowSchedule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = "motedge.ladder/v1"
# What a file says for guidance at every step, for TOML has no null
ALWAYS = "always"
_SETTINGS = ("steps", "shift", "guidance", "guidance_interval")
_KEYS = ("name", "trained", *_SETTINGS)
# Beyond every timestep, which are at most 1000: the upper edge that NVIDIA's server uses for Edge
_INTERVAL_END = 1001.0


@dataclass(frozen=True)
class Ladder:
    """At least one operating point; each takes fewer forwards than the one before."""

    points: tuple[OperatingPoint, ...]

    def __post_init__(self) -> None:
        if not self.points:
            raise UsageError("the ladder has no operating point", expected="at least one")
        names = [point.name for point in self.points]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"the ladder has two points called {name!r}", fix="give each its own name")
        for better, cheaper in zip(self.points, self.points[1:]):
            if cheaper.forwards >= better.forwards:
                raise UsageError(
                    f"the ladder is out of order: point {cheaper.name!r} is no cheaper than {better.name!r} above it",
                    expected=f"fewer than {better.forwards} forwards of the generator",
                    got=cheaper.forwards,
                    why="it would never be taken: the one above is better and costs no more",
                    fix="sort the points, best first, or remove one",
                )

    def __iter__(self) -> Iterator[OperatingPoint]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def best(self) -> OperatingPoint:
        """The point to take when time is no matter."""
        return self.points[0]

    @property
    def cheapest(self) -> OperatingPoint:
        """The point with the fewest forwards."""
        return self.points[-1]

    def point(self, name: str) -> OperatingPoint:
        """The point of that name.

        Raises:
            UsageError: there is none; names the closest.
        """
        for point in self.points:
            if point.name == name:
                return point
        raise UsageError(f"unknown operating point {name!r}", fix=closest(name, [point.name for point in self.points]))

    @classmethod
    def from_settings(cls, settings: SamplerSettings) -> Ladder:
        """The ladder of a bundle that declares none.

        As shipped; the same with guidance at the first step alone; half the steps, again and again, with guidance as
        before and then without; one step without guidance; all but the first without a step cache. What would not save
        a forward is left out. A distilled model has the first alone. What a cheaper point costs in task success depends
        on the model and is not known here.
        """
        points = [OperatingPoint("shipped", settings)]
        if settings.distilled_sigmas is not None:
            # Its steps can't be chosen
            return cls(tuple(points))
        # Steps to leave out were named for the number of steps as shipped
        settings = dataclasses.replace(settings, step_cache=None)
        first = _guided_at_first(settings)
        candidates = [OperatingPoint("guided-first", first)]
        steps = settings.steps // 2
        while steps > 1:
            shorter = dataclasses.replace(settings, steps=steps)
            candidates.append(OperatingPoint(f"{steps}-steps", shorter))
            candidates.append(OperatingPoint(f"{steps}-steps-guided-first", _guided_at_first(shorter)))
            candidates.append(OperatingPoint(f"{steps}-steps-unguided", _unguided(shorter)))
            steps //= 2
        candidates.append(OperatingPoint("1-step-unguided", _unguided(dataclasses.replace(settings, steps=1))))
        for candidate in candidates:
            if candidate.forwards < points[-1].forwards:
                points.append(candidate)
        return cls(tuple(points))

    @classmethod
    def from_toml(cls, path: PathLike, settings: SamplerSettings) -> Ladder:
        """Reads a file; what a point does not say is taken from `settings`, the bundle's own.

        Raises:
            UsageError: no such file, not TOML, an unknown key (the closest is named), a value of a wrong kind or out of
                range, no point, points out of order.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the ladder {path} can't be read", got=str(error)) from error
        return cls.from_text(text, settings, str(path))

    @classmethod
    def from_text(cls, text: str, settings: SamplerSettings, source: str = "ladder") -> Ladder:
        """As `from_toml`, from the file's content; `source` names it in messages."""
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{source} is not TOML", got=str(error)) from error
        _known(source, raw, ("schema", "points"))
        if raw.get("schema") != SCHEMA:
            raise UsageError(f"{source} is of another schema", expected=SCHEMA, got=raw.get("schema", "none"))
        tables = raw.get("points", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise UsageError(f"{source}: points is of a wrong kind", expected="[[points]] tables", got=repr(tables))
        return cls(tuple(_point(f"{source}: point {index + 1}", table, settings) for index, table in enumerate(tables)))


def _point(where: str, table: Mapping[str, Any], settings: SamplerSettings) -> OperatingPoint:
    _known(where, table, _KEYS)
    if "name" not in table:
        raise UsageError(f"{where} has no name", expected='name = "..."')
    overrides = {key: _setting(f"{where}: {key}", key, table[key]) for key in _SETTINGS if key in table}
    return OperatingPoint(table["name"], dataclasses.replace(settings, **overrides), table.get("trained", True))


def _setting(where: str, key: str, value: Any) -> Any:
    """A value of the right kind; the range is checked by SamplerSettings."""
    if key == "guidance_interval":
        if value == ALWAYS:
            return None
        if isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)):
            return float(value[0]), float(value[1])
        raise UsageError(f"{where} is wrong", expected=f'[LO, HI] in timesteps 0 to 1000, or "{ALWAYS}"', got=value)
    if key == "steps":
        return value
    if not _is_number(value):
        raise UsageError(f"{where} is wrong", expected="a number", got=repr(value))
    return float(value)


def _known(where: str, table: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in table:
        if key == "frames":
            raise UsageError(
                f"{where}: the number of frames is no sampler setting",
                why="it is fixed by the shape set that the bundle was exported for",
                fix="export with fewer frames for a cheaper tick; the model was not trained for that",
            )
        if key not in keys:
            raise UsageError(f"{where}: unknown key {key!r}", fix=closest(key, keys))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _guided_at_first(settings: SamplerSettings) -> SamplerSettings:
    """Guidance at the first step only, where it decides most; the interval's edges are strict."""
    timesteps = FlowSchedule(settings.steps, settings.shift).timesteps
    second = float(timesteps[1]) if len(timesteps) > 1 else 0.0
    return dataclasses.replace(settings, guidance_interval=(second, _INTERVAL_END))


def _unguided(settings: SamplerSettings) -> SamplerSettings:
    return dataclasses.replace(settings, guidance=1.0, guidance_interval=None)
