"""What was measured, a line each, as it comes: an interrupted bench goes on from there.

DIR/journal.jsonl; the first line says what the bench is of, and must be the same when it goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from motedge.bench.differences import differences, told
from motedge.errors import DataError, HostError, InternalError, UsageError
from motedge.files import PathLike, atomic_open, disk_error, require_writable

SCHEMA = "motedge.bench_journal/v1"
FILE = "journal.jsonl"
# Held by the bench that writes here
LOCK = "journal.lock"
HEAD = "head"


class Journal:
    """Lines of JSON objects with a `kind`. One process writes; what it has written is on the disk.

    Args:
        folder: of the bench, made if it is not there.
        identity: what must not change: bundles, device, versions, cells, options.
        restart: forget what is there.

    Raises:
        UsageError: the folder holds a bench of another identity.
        DataError: the journal is damaged.
        HostError: it can't be written, or another bench is writing it.
    """

    def __init__(self, folder: PathLike, identity: Mapping[str, Any], *, restart: bool = False) -> None:
        self.path = Path(folder) / FILE
        require_writable(self.path)
        self._lock = _locked(self.path.with_name(LOCK))
        wanted = _as_read(identity)
        if restart or not self.path.exists():
            self.lines: list[dict[str, Any]] = []
            with atomic_open(self.path, "w") as stream:
                stream.write(_line({"kind": HEAD, "schema": SCHEMA, "identity": wanted}))
            return
        head, *self.lines = read_journal(folder)
        _require_same(self.path, head.get("identity"), wanted)
        self._cut_torn()

    def append(self, kind: str, **values: Any) -> None:
        """Adds a line.

        Raises:
            HostError: the disk is full or not writable; the lines before are still whole.
        """
        line = {"kind": kind, **values}
        text = _line(line).encode()
        before = self.path.stat().st_size
        try:
            with open(self.path, "ab", buffering=0) as stream:
                try:
                    if stream.write(text) != len(text):
                        raise OSError(28, os.strerror(28))
                    os.fsync(stream.fileno())
                except OSError:
                    stream.truncate(before)
                    raise
        except OSError as error:
            raise disk_error(error, self.path) from error
        self.lines.append(json.loads(text))

    def close(self) -> None:
        """Lets another bench write here."""
        self._lock.close()

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The lines of a kind, the oldest first."""
        return [line for line in self.lines if line["kind"] == kind]

    def _cut_torn(self) -> None:
        """What a crash left of a line is cut off, so that the next one begins where it should."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)


def check_journal(folder: PathLike, identity: Mapping[str, Any], *, restart: bool = False) -> None:
    """Raises what `Journal` would of these, but for another bench that is writing; makes nothing.

    Raises:
        UsageError, DataError, HostError: as `Journal`.
    """
    path = Path(folder) / FILE
    require_writable(path)
    if not restart and path.exists():
        _require_same(path, read_journal(folder)[0].get("identity"), _as_read(identity))


def read_journal(folder: PathLike) -> list[dict[str, Any]]:
    """All whole lines, the head first.

    Raises:
        DataError: there is none, or it is damaged elsewhere than at its end.
    """
    path = Path(folder) / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"there is no bench in {folder}", fix="motedge bench BUNDLE --out DIR") from error
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(content.split(b"\n")[:-1], 1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path} is damaged in line {number}", got=str(error), fix="--restart") from error
        if not isinstance(line, dict) or "kind" not in line:
            raise DataError(f"{path} is damaged in line {number}", got=text[:60].decode(errors="replace"))
        lines.append(line)
    if not lines or lines[0]["kind"] != HEAD or lines[0].get("schema") != SCHEMA:
        got = lines[0].get("schema") if lines else "nothing"
        raise DataError(f"{path} is no bench's journal", expected=SCHEMA, got=got, fix="--restart, or another --out")
    return lines


def _require_same(path: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    if not isinstance(found, dict):
        raise DataError(f"{path} is damaged", got="no identity", fix="--restart")
    different = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if different:
        parts = differences(found, wanted)
        raise UsageError(
            f"{path.parent} holds a bench that differs in {', '.join(different)}",
            expected=told(parts, "before"),
            got=told(parts, "now"),
            why="figures of both would stand side by side as if they were of one",
            fix="give another --out, or --restart to measure anew and lose what is there",
        )


def _as_read(identity: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, tuples as lists."""
    read: dict[str, Any] = json.loads(_line(identity))
    return read


def _locked(path: Path) -> IO[bytes]:
    """The lock, until it is closed; the end of the process closes it too."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "ab")  # noqa: SIM115 -- held as long as the journal
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        import fcntl

        fcntl.flock(stream.fileno(), fcntl.LOCK_EX + fcntl.LOCK_NB)
    except ImportError:
        pass
    except OSError as error:
        stream.close()
        raise HostError(f"another bench is writing {path.parent}", fix="wait for it, or give another --out") from error
    return stream


def _line(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise InternalError(f"the journal was given what is not JSON: {error}") from error
