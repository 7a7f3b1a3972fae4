"""The robots and vehicles that Cosmos 3 has action projections for, by name. Data: ../data/embodiments.toml."""

from __future__ import annotations

import functools
import importlib.resources
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import InternalError, ObservationError, closest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Embodiment:
    """One kind of robot, as the model knows it."""

    name: str
    # Row of the action projections, 0 to 31; several embodiments may share one
    domain_id: int
    # Used channels of an action row; None where it depends on the data set
    raw_dim: Optional[int] = None
    # The same for base models, where it differs from the policies'
    base_raw_dim: Optional[int] = None
    # How states and actions are packed: "droid", or None where motedge does not know it
    protocol: Optional[str] = None
    # Name and unit of each used channel, in order
    fields: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.protocol is not None and not len(self.fields) == len(self.units) == self.raw_dim:
            raise InternalError(f"embodiments.toml: fields, units and raw_dim of {self.name} disagree")


def find_embodiment(name: str) -> Embodiment:
    """The embodiment of that name, whatever its case.

    Raises:
        ObservationError: no embodiment is called so; names the closest.
    """
    known = load_embodiments()
    key = name.lower().strip()
    if key not in known:
        raise ObservationError(f"unknown embodiment {name!r}", fix=closest(key, known))
    return known[key]


@functools.lru_cache(maxsize=1)
def load_embodiments() -> Mapping[str, Embodiment]:
    """All embodiments by name."""
    text = (importlib.resources.files("motedge.runtime") / "data" / "embodiments.toml").read_text(encoding="utf-8")
    found = {}
    for name, entry in tomllib.loads(text).items():
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        found[name] = Embodiment(name=name, **values)
    return found
