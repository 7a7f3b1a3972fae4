"""The devices of the catalogue, one file each in targets/data/, and a device from a file of one's own."""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Mapping
from pathlib import Path

from motedge.errors import UsageError, closest
from motedge.targets.catalog.model import SoftwareRow, Target
from motedge.targets.catalog.read import parse_releases, parse_target

# Becomes the name of a folder in bundles
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def load_target(name: str) -> Target:
    """A device by its id, or one from a .toml file, whose name becomes the id.

    Raises:
        UsageError: unknown (the closest is named), or a file that can't be read or does not fit.
    """
    if name.endswith(".toml"):
        return _own(Path(name))
    known = targets()
    if name not in known:
        raise UsageError(f"unknown target {name!r}", fix=f"{closest(name, known)}; or a .toml file")
    return known[name]


@functools.lru_cache(maxsize=1)
def targets() -> Mapping[str, Target]:
    """All devices of the catalogue, by id."""
    known = releases()
    # What begins with _ is shared by devices
    return {
        name[: -len(".toml")]: parse_target(name[: -len(".toml")], text, f"targets/data/{name}", known)
        for name, text in data_files().items()
        if not name.startswith("_")
    }


@functools.lru_cache(maxsize=1)
def releases() -> Mapping[str, SoftwareRow]:
    """Releases of system software, by name, with no regard to the device."""
    return parse_releases(data_files()["_releases.toml"], "targets/data/_releases.toml")


@functools.lru_cache(maxsize=1)
def data_files() -> Mapping[str, str]:
    """Texts of targets/data/*.toml, by file name."""
    folder = importlib.resources.files("motedge.targets") / "data"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def _own(path: Path) -> Target:
    if not _ID.fullmatch(path.stem):
        raise UsageError(
            f"{path.name!r} can't name a target",
            expected="lower-case words and numbers joined by hyphens",
            why="the name becomes that of a folder in the bundle",
        )
    if path.stem in targets():
        raise UsageError(
            f"{path} would hide the catalogue's {path.stem!r}",
            why="engines of both would go to one folder",
            fix="rename the file",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read the target {path}", got=str(error)) from error
    return parse_target(path.stem, text, str(path), releases())
