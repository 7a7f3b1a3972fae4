"""What has been driven so far: a line a drive, so that an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from examples.train_small.closed_loop.drivers import BundleSpec
from motedge.bundle.folder import MANIFEST
from motedge.errors import BundleError, DataError, UsageError
from motedge.files import PathLike, disk_error, sha256_file

SCHEMA = "motedge.closed-loop-journal/v1"
_FOLDER = Path(__file__).resolve().parent.parent
# What decides how a drive goes and is judged
_DECIDING = (
    "road",
    *(f"drive/{name}.py" for name in ("drive", "drivers", "score", "tracker")),
    *(f"closed_loop/{name}.py" for name in ("one_drive", "open_loop", "rows")),
)
# Of a session's conditions, those that a plan's time depends on
_ALIKE = ("cpu", "usable_cores", "threads", "versions", "simulator", "workers")


# Hash of the manifest, recipe, variant
_DRIVEN = ("sha256", "recipe", "variant")
_Driven = tuple[str, Optional[str], Optional[str]]


class Journal:
    """A file of JSON lines: a head, the bundles, then what was measured.

    Lines are dicts of one kind each:
        {"schema", "program"}: the first line
        {"session": {...}}: when, where and by which commit the lines after it were measured
        {"bundle", "sha256", "recipe", "variant"}: name, hash of its manifest, which has the hashes of its files, and
            which of its graphs drive
        {"row", "seed", "behaviour", ...}: a finished drive
        {"model", "open_loop_m": [...]}: errors of a model's plans on the held-out pictures
    """

    def __init__(self, path: PathLike, bundles: Mapping[str, BundleSpec]) -> None:
        """Reads what is there, and begins the file where there is none.

        Args:
            path: The file.
            bundles: By name; ones that are new to the journal are added.

        Raises:
            DataError: a line in the middle is damaged. A half-written last line is dropped.
            UsageError: the journal is of another program, or of another bundle or recipe of the same name.
            BundleError: there is no bundle.
        """
        self.path = Path(path)
        self._bundles: dict[str, _Driven] = {}
        self.drives: dict[tuple[str, int, str], dict[str, Any]] = {}
        self.open_loop: dict[str, list[float]] = {}
        self.sessions: list[dict[str, Any]] = []
        program = program_hash()
        if self._read(program) == 0:
            self._append({"schema": SCHEMA, "program": program})
        for name, spec in bundles.items():
            manifest = spec.path / MANIFEST
            if not manifest.is_file():
                raise BundleError(f"there is no bundle at {spec.path}", expected=f"a folder with {MANIFEST}")
            self._own(name, (sha256_file(manifest), spec.recipe, spec.variant))

    def begin(self, session: Mapping[str, Any]) -> None:
        """Notes who measures from here on, and on what.

        Args:
            session: Conditions of a benchmark; those of _ALIKE must be what they were.

        Raises:
            UsageError: another machine, other versions or other workers than before.
        """
        if self.sessions:
            before = self.sessions[-1]
            other = [name for name in _ALIKE if before.get(name) != session.get(name)]
            if other:
                raise UsageError(
                    f"{self.path} was measured under other conditions",
                    expected="; ".join(f"{name}: {before.get(name)}" for name in other),
                    got="; ".join(f"{name}: {session.get(name)}" for name in other),
                    why="times of both would stand in one row",
                    fix="take another --work folder, or go on as it was begun",
                )
        self._append({"session": dict(session)})
        self.sessions.append(dict(session))

    def add_drive(self, row: str, seed: int, behaviour: str, found: Mapping[str, Any]) -> None:
        """Writes a finished drive, to the disk."""
        line = {"row": row, "seed": seed, "behaviour": behaviour, **found}
        self._append(line)
        self.drives[row, seed, behaviour] = line

    def add_open_loop(self, model: str, errors_m: list[float]) -> None:
        """Writes a model's errors on the held-out pictures."""
        self._append({"model": model, "open_loop_m": errors_m})
        self.open_loop[model] = errors_m

    @property
    def bundles(self) -> dict[str, str]:
        """Name -> hash of the manifest, of all that drove."""
        return {name: sha256 for name, (sha256, _, _) in self._bundles.items()}

    def _own(self, name: str, driven: _Driven) -> None:
        known = self._bundles.get(name)
        if known is None:
            self._append({"bundle": name, **dict(zip(_DRIVEN, driven))})
            self._bundles[name] = driven
        elif known != driven:
            raise UsageError(
                f"another bundle was driven as {name!r}",
                expected=_words(known),
                got=_words(driven),
                why="drives of two bundles in one row would be nobody's",
                fix=f"give the bundle another name, or another --work folder than {self.path.parent}",
            )

    def _read(self, program: str) -> int:
        if not self.path.is_file():
            return 0
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, text in enumerate(whole.splitlines(), 1):
            try:
                line = json.loads(text)
                self._take(line)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"line {number} of {self.path} is damaged", got=repr(error), fix="delete the file to start anew"
                ) from error
            if number == 1 and (line.get("schema"), line.get("program")) != (SCHEMA, program):
                raise UsageError(
                    f"{self.path} was begun by another version of the road, the drive or the rows",
                    expected=f"{SCHEMA} of program {program[:12]}",
                    got=f"{line.get('schema')} of program {str(line.get('program'))[:12]}",
                    why="its drives can't be compared with new ones",
                    fix="take another --work folder, or delete the file",
                )
        if len(whole) < len(content):
            # What a killed run left half-written
            with open(self.path, "r+b") as stream:
                stream.truncate(len(whole))
        return len(whole)

    def _take(self, line: dict[str, Any]) -> None:
        if "row" in line:
            self.drives[line["row"], int(line["seed"]), line["behaviour"]] = line
        elif "model" in line:
            self.open_loop[line["model"]] = list(line["open_loop_m"])
        elif "bundle" in line:
            self._bundles[line["bundle"]] = (line["sha256"], line["recipe"], line["variant"])
        elif "session" in line:
            self.sessions.append(dict(line["session"]))
        elif "schema" not in line:
            raise KeyError("none of row, model, bundle, session, schema")

    def _append(self, line: Mapping[str, Any]) -> None:
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise disk_error(error, self.path) from error


def _words(driven: _Driven) -> str:
    sha256, recipe, variant = driven
    return f"manifest {sha256[:12]}, recipe {recipe or 'none'}, variant {variant or 'the first'}"


def program_hash() -> str:
    """Of the sources that decide how a drive goes. Not the commit, which changes with every sentence of a page."""
    digest = hashlib.sha256()
    for part in _DECIDING:
        place = _FOLDER / part
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{path.relative_to(_FOLDER).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()
