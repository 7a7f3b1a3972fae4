"""The catalogue of devices: one TOML file each in data/, every figure with its source and how far to trust it.

name = "Jetson AGX Orin 64 GB"
[compute_capability]
value = 8.7                 # absent: no CUDA GPU
mark = "vendor"             # vendor, derived, community or unverified
source = "..."
"""

from __future__ import annotations

import functools
import importlib.resources
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import InternalError, UsageError, closest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MARKS = ("vendor", "derived", "community", "unverified")


@dataclass(frozen=True)
class Figure:
    """One number of a device."""

    # None where there is nothing to give: a CPU has no compute capability
    value: Optional[float]
    # One of MARKS
    mark: str
    source: str

    def __post_init__(self) -> None:
        if self.mark not in MARKS:
            raise InternalError(f"a device's figure is marked {self.mark!r}, not one of {', '.join(MARKS)}")


@dataclass(frozen=True)
class Target:
    """One device."""

    # File name without .toml: "jetson-agx-thor-t5000"
    id: str
    # As its maker writes it
    name: str
    # CUDA compute capability, 8.7 and so on
    capability: Figure

    @property
    def compute_capability(self) -> Optional[float]:
        """8.7 and so on; None without a CUDA GPU."""
        return self.capability.value


def load_target(name: str) -> Target:
    """A device by its id; UsageError names the closest for an unknown one."""
    known = targets()
    if name not in known:
        raise UsageError(f"unknown target {name!r}", fix=closest(name, known))
    return known[name]


@functools.lru_cache(maxsize=1)
def targets() -> Mapping[str, Target]:
    """All devices, by id."""
    folder = importlib.resources.files("motedge.targets") / "data"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    found = {}
    for file in files:
        target = _parse(file.name[: -len(".toml")], tomllib.loads(file.read_text(encoding="utf-8")))
        found[target.id] = target
    return found


def _parse(name: str, raw: Mapping[str, Any]) -> Target:
    for key in raw:
        if key not in ("name", "compute_capability"):
            raise InternalError(f"targets/data/{name}.toml: unknown key {key!r}")
    figure = raw["compute_capability"]
    return Target(name, raw["name"], Figure(figure.get("value"), figure["mark"], figure["source"]))
