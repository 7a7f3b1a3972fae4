"""motedge's own requirements, read from its package metadata, and whether a version lies in their range.

Understands what pyproject.toml uses: `name`, comma-separated version bounds, and the markers `extra`, `python_version`,
`platform_machine` and `sys_platform` joined by `and`. The package `packaging`, which knows the rest, is not a
dependency of the device.
"""

from __future__ import annotations

import importlib.metadata
import operator
import platform
import re
import sys
from dataclasses import dataclass
from typing import Optional

from motedge.errors import HostError, InternalError

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)\s*([^;]*?)\s*(?:;\s*(.*))?$")
_BOUND = re.compile(r"^(<=|>=|==|!=|<|>)\s*([0-9][^,\s]*)$")
_MARKER = re.compile(
    r"""^[\s(]*(extra|python_version|platform_machine|sys_platform)\s*(<=|>=|==|!=|<|>)\s*["']([^"']+)["'][\s)]*$"""
)
_COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Requirement:
    """One package that motedge was tested with."""

    # Distribution name, as on PyPI
    name: str
    # ((">=", "1.26"), ("<", "2.5")); empty: any version
    bounds: tuple[tuple[str, str], ...]
    # The extra that brings it, None for what every installation has
    extra: Optional[str]
    # False where a marker excludes this Python
    applies: bool

    @property
    def range(self) -> str:
        """The bounds as text, lowest first: '>=1.26, <2.5'."""
        return ", ".join(sign + version for sign, version in sorted(self.bounds, key=lambda b: version_key(b[1])))

    def accepts(self, version: str) -> bool:
        """Whether a version lies within the bounds; local and pre-release parts are not compared."""
        key = version_key(version)
        return all(_compare(key, sign, version_key(bound)) for sign, bound in self.bounds)


def version_key(version: str) -> tuple[int, ...]:
    """The release numbers of a version: '2.13.0+cpu' -> (2, 13, 0)."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in release.group().split(".")) if release else ()


def parse(text: str) -> Requirement:
    """Parses one line of `Requires-Dist`.

    Raises:
        InternalError: pyproject.toml has come to use a form that this module does not understand.
    """
    found = _REQUIREMENT.match(text)
    if not found:
        raise InternalError(f"a requirement of an unknown form: {text!r}")
    name, bounds_text, markers = found.groups()
    bounds = []
    for part in filter(None, (p.strip() for p in bounds_text.strip("() ").split(","))):
        bound = _BOUND.match(part)
        if not bound:
            raise InternalError(f"a version bound of an unknown form: {part!r} in {text!r}")
        bounds.append((bound.group(1), bound.group(2)))
    extra, applies = _markers(markers or "", text)
    return Requirement(name, tuple(bounds), extra, applies)


def requirements(distribution: str = "motedge") -> list[Requirement]:
    """Every requirement of the installed motedge, in the order of pyproject.toml.

    Raises:
        HostError: motedge is run from its source folder without being installed.
    """
    try:
        lines = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise HostError(
            "motedge is not installed as a package, so the versions that it was tested with are not known",
            fix="pip install -e .   (in its source folder)",
        ) from error
    return [parse(line) for line in lines]


def installed_version(name: str) -> Optional[str]:
    """The version of an installed distribution, None without one. Imports nothing of it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _markers(markers: str, text: str) -> tuple[Optional[str], bool]:
    extra, applies = None, True
    for marker in filter(None, re.split(r"\s+and\s+", markers)):
        found = _MARKER.match(marker)
        if not found:
            raise InternalError(f"a marker of an unknown form: {marker!r} in {text!r}")
        variable, sign, value = found.groups()
        if variable == "extra":
            extra = value
        elif variable == "python_version":
            applies = applies and _compare(sys.version_info[:2], sign, version_key(value))
        else:
            here = platform.machine() if variable == "platform_machine" else sys.platform
            applies = applies and _COMPARE[sign](here, value)
    return extra, applies


def _compare(left: tuple[int, ...], sign: str, right: tuple[int, ...]) -> bool:
    # 2.5 and 2.5.0 are the same release
    width = max(len(left), len(right))
    return bool(_COMPARE[sign](left + (0,) * (width - len(left)), right + (0,) * (width - len(right))))
