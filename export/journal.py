"""What an export has finished so far, so that an interrupted one goes on and a finished one does nothing.

Every finished file is noted in `.export.json` with the hash of what it was made from. The manifest is written last
and replaces the journal: a folder without a manifest is not a bundle yet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from motedge.bundle import Bundle, FileEntry, Manifest
from motedge.bundle.folder import MANIFEST
from motedge.errors import BundleError
from motedge.files import PARTIAL_SUFFIX, sha256_file, write_json

JOURNAL = ".export.json"
FORMAT = 1  # raise it when the exporter writes another file for the same inputs
_log = logging.getLogger(__name__)


def source_hash(*parts: Any) -> str:
    """The hex sha256 of everything that determines a file; parts are JSON values."""
    text = json.dumps([FORMAT, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """The finished files of one bundle folder, from its manifest or from an interrupted export. Thread-safe."""

    def __init__(self, root: Path, origin: str) -> None:
        """`origin` goes into every file's source hash: another checkpoint makes all files anew.

        Raises:
            BundleError: `root` is a file, or its manifest is damaged or of a newer schema.
        """
        self.root, self.origin = root, origin
        self.previous: Manifest | None = None
        self.files: dict[str, FileEntry] = {}
        # Files written by this run
        self.written: list[str] = []
        # Names that this run asked for, written or up to date
        self._asked: set[str] = set()
        self._lock = threading.Lock()
        if root.exists() and not root.is_dir():
            raise BundleError(f"{root} is a file, not a folder", fix="give another --out folder")
        if (root / MANIFEST).exists():
            self.previous = Bundle.open(root).manifest
            self.files = dict(self.previous.files)
        if (root / JOURNAL).exists():
            self._read()

    def make(self, name: str, role: str, parts: Any, write: Callable[[Path], tuple[str, int] | None]) -> bool:
        """Makes one file unless it is there as recorded and was made from the same parts.

        Args:
            name: path in the bundle.
            role: see FileEntry.
            parts: JSON values that determine the content, besides the origin.
            write: writes the file atomically at the given path; may return its (sha256, bytes).

        Returns:
            Whether the file was written.
        """
        source = source_hash(self.origin, name, parts)
        with self._lock:
            self._asked.add(name)
        if self._done(name, source):
            return False
        path = self.root / name
        digest, size = write(path) or (sha256_file(path), path.stat().st_size)
        with self._lock:
            self.files[name] = FileEntry(digest, size, role, source)
            self.written.append(name)
            entries = {key: dataclasses.asdict(entry) for key, entry in self.files.items()}
            write_json(self.root / JOURNAL, {"origin": self.origin, "files": entries})
        return True

    def missing(self, name: str, parts: Any) -> bool:
        """Whether `make` with these arguments would write the file."""
        return not self._done(name, source_hash(self.origin, name, parts))

    def bundle_files(self) -> dict[str, FileEntry]:
        """The files that belong to the bundle: those of its last manifest and those that this run asked for.

        What an interrupted export of other variants or another shape set finished is not among them.
        """
        known = self._asked | set(self.previous.files if self.previous else ())
        return {name: entry for name, entry in sorted(self.files.items()) if name in known}

    def finish(self, manifest: Manifest) -> None:
        """Writes the manifest if it changed; removes the journal and what interrupted runs left behind."""
        if manifest != self.previous:
            write_json(self.root / MANIFEST, manifest.to_dict())
        for name in self.files.keys() - self.bundle_files().keys():
            (self.root / name).unlink(missing_ok=True)
        (self.root / JOURNAL).unlink(missing_ok=True)
        # In the bundle's own folders alone: whatever else lies beside them is not ours
        for folder in {name.partition("/")[0] for name in self.files if "/" in name}:
            for partial in (self.root / folder).rglob(f"*{PARTIAL_SUFFIX}"):
                partial.unlink()
        for name in (MANIFEST, JOURNAL):
            (self.root / (name + PARTIAL_SUFFIX)).unlink(missing_ok=True)

    def _done(self, name: str, source: str) -> bool:
        entry, path = self.files.get(name), self.root / name
        return entry is not None and entry.source == source and path.is_file() and path.stat().st_size == entry.bytes

    def _read(self) -> None:
        try:
            raw = json.loads((self.root / JOURNAL).read_text(encoding="utf-8"))
            files = {_inside(name): FileEntry(**value) for name, value in raw["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("the record of an interrupted export is damaged (%s): starting over", error)
            return
        if raw.get("origin") != self.origin:
            _log.warning("the export that was interrupted here was of another checkpoint: starting over")
        self.files.update(files)


def _inside(name: str) -> str:
    """The name of a file below the bundle folder; ValueError for any other, because what is stale gets deleted."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} lies outside the bundle")
    return name
