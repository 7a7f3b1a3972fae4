"""What a search has measured so far: one line of JSON a record, appended as it comes.

A line holds the search's key, so that no record is taken for one of another bundle, data set or set of forwards.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motedge.errors import UsageError
from motedge.files import disk_error, write_json
from motedge.quant.sensitivity.tasks import Records

SCHEMA = "motedge.sensitivity-search/v1"
IDENTITY, LEDGER = "search.json", "costs.jsonl"


class Ledger:
    """The records of one results folder."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Opens a folder's records, or begins them.

        Args:
            folder: the results folder; made if it is not there.
            identity: everything that determines the numbers; JSON.

        Raises:
            UsageError: the folder holds the records of another search; says what differs.
        """
        self.key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._path = folder / LEDGER
        # Whether nothing was measured here yet
        self.begun = not begun_with(folder, identity)
        if self.begun:
            write_json(folder / IDENTITY, {"schema": SCHEMA, "identity": identity})
        self.records: Records = {}
        self._read()

    def add(self, records: Records) -> None:
        """Appends records, on disk before this returns."""
        lines = "".join(_line(self.key, name, values) for name, values in records.items())
        try:
            with open(self._path, "a", encoding="utf-8") as stream:
                stream.write(lines)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise disk_error(error, self._path) from error
        self.records.update(records)

    def _read(self) -> None:
        if not self._path.exists():
            return
        data = self._path.read_bytes()
        # A process that was killed while it wrote leaves half a line
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) != len(data):
            os.truncate(self._path, len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                key, name, values = entry["key"], entry["id"], entry["values"]
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{self._path} is damaged", got=f"line {number}", fix="delete that line: it is measured again"
                ) from error
            if key == self.key:
                self.records[name] = values


def read_identity(folder: Path) -> dict[str, Any] | None:
    """What the folder's records were measured on; None where there are none.

    Raises:
        UsageError: the file is not one of ours.
    """
    path = folder / IDENTITY
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != SCHEMA:
            raise KeyError(raw["schema"])
        identity: dict[str, Any] = raw["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not a search's", expected=SCHEMA, fix="give another --out folder") from error
    return identity


def begun_with(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether this very search was begun in the folder.

    Raises:
        UsageError: something else was measured there; names each difference.
    """
    stored = read_identity(folder)
    if stored is None:
        return False
    current = json.loads(json.dumps(identity))
    different = [name for name in sorted({*stored, *current}) if stored.get(name) != current.get(name)]
    if different and (folder / LEDGER).exists():
        raise UsageError(
            f"{folder} holds the results of another search",
            expected=", ".join(f"{name} {stored.get(name)}" for name in different),
            got=", ".join(f"{name} {current.get(name)}" for name in different),
            fix="give another --out folder, or the same bundle, data and settings as before",
        )
    return not different


def _line(key: str, name: str, values: Mapping[str, Any]) -> str:
    return json.dumps({"key": key, "id": name, "values": values}, allow_nan=False) + "\n"
