"""pack.json: what an archive holds, for which device, with size and sha256 of every file. It is what gets signed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import BundleError

SCHEMA = "motedge.pack/v1"
LISTING = "pack.json"
SIGNATURE = "pack.json.minisig"
# Far above what a bundle has (Edge: 30 files, 6 kB), and small enough to be read into memory before it is trusted
LISTING_BYTES_MAX = 16_000_000
# Size of the name field of a tar header (POSIX ustar)
NAME_BYTES_MAX = 100
_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID_DIGITS = 12
_FIX = "don't use it; fetch the archive again, or pack again"


@dataclass(frozen=True)
class PackedFile:
    """One file of an archive."""

    sha256: str
    bytes: int
    executable: bool = False


@dataclass(frozen=True)
class Release:
    """A release of the device's system software that takes the archive's graphs; None where it is not known."""

    # "JetPack 6.2"
    release: str
    l4t: Optional[str] = None
    tensorrt: Optional[str] = None
    python: Optional[str] = None


@dataclass(frozen=True)
class PackListing:
    """All of pack.json."""

    # Of model, shape set and recipe, for people: "edge-policy-droid-droid-fp8"
    name: str
    # Id of the device
    target: str
    # "tensorrt", "tensorrt-rtx" or "onnxruntime"
    builder: str
    # Version that packed
    motedge: str
    # Graph -> variant
    variants: Mapping[str, str]
    releases: tuple[Release, ...]
    # Path in the archive -> entry; everything but pack.json and its signature
    files: Mapping[str, PackedFile]
    recipe: Optional[str] = None
    # Description of a device that is not in the catalogue, a path in the archive
    target_file: Optional[str] = None

    @property
    def total_bytes(self) -> int:
        """Of all files, unpacked."""
        return sum(entry.bytes for entry in self.files.values())

    def to_bytes(self) -> bytes:
        """JSON; the same listing gives the same bytes."""
        values = dataclasses.asdict(self)
        return (json.dumps({"schema": SCHEMA, **values}, indent=1, sort_keys=True) + "\n").encode("utf-8")

    @classmethod
    def from_bytes(cls, data: bytes) -> PackListing:
        """Parses pack.json of an origin that is not trusted.

        Raises:
            BundleError: another schema, an unknown, missing or doubled key, a value of a wrong kind, a file name that
                could lead out of the folder.
        """
        try:
            raw = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{LISTING} is damaged", got=str(error), fix=_FIX) from error
        schema = raw.get("schema") if isinstance(raw, dict) else None
        if schema != SCHEMA:
            raise BundleError(f"{LISTING} has another schema", expected=SCHEMA, got=schema, fix="upgrade motedge here")
        try:
            listing = _parse({key: value for key, value in raw.items() if key != "schema"})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            got = f"{type(error).__name__}: {error}"
            raise BundleError(f"{LISTING} lacks a field or holds a wrong one", got=got, fix=_FIX) from error
        check_names(listing.files)
        return listing


def bundle_id(name: str, listing_bytes: bytes) -> str:
    """What an installed bundle's folder is called: the name and 12 digits of the listing's sha256."""
    return f"{name}-{hashlib.sha256(listing_bytes).hexdigest()[:_ID_DIGITS]}"


def check_names(names: Iterable[str]) -> None:
    """BundleError unless all names stay below one folder, fit a tar header, and can exist beside each other."""
    files = set(names)
    for name in sorted(files):
        parts = name.split("/")
        sound = name.isascii() and name.isprintable() and "\\" not in name and len(name) <= NAME_BYTES_MAX
        if not sound or any(part in ("", ".", "..") for part in parts) or name in (LISTING, SIGNATURE):
            raise BundleError(
                "a file of the archive has a name that is not allowed",
                expected=f"a relative path of at most {NAME_BYTES_MAX} ASCII characters, without '..'",
                got=repr(name),
                why="such an archive could overwrite any file of the machine",
                fix=_FIX,
            )
        folders = ("/".join(parts[:count]) for count in range(1, len(parts)))
        if clash := files.intersection(folders):
            raise BundleError("the archive uses a name for a file and for a folder", got=clash.pop(), fix=_FIX)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _parse(raw: dict[str, Any]) -> PackListing:
    files = {name: _file(entry) for name, entry in raw.pop("files").items()}
    releases = tuple(Release(**_texts(entry)) for entry in raw.pop("releases"))
    variants = _texts(raw.pop("variants"))
    listing = PackListing(files=files, releases=releases, variants=variants, **_texts(raw))
    for what in (listing.name, listing.target):
        # Both become names of folders
        if not isinstance(what, str) or not _NAME.fullmatch(what):
            raise ValueError(f"{what!r} can't be a name")
    if listing.target_file is not None and listing.target_file not in files:
        raise ValueError(f"{listing.target_file!r} is not among the files")
    return listing


def _texts(raw: dict[str, Any]) -> dict[str, Any]:
    wrong = [key for key, value in raw.items() if not (value is None or isinstance(value, str))]
    if wrong:
        raise TypeError(f"{wrong[0]} is not text")
    return raw


def _file(raw: dict[str, Any]) -> PackedFile:
    entry = PackedFile(**raw)
    if type(entry.bytes) is not int or entry.bytes < 0 or type(entry.executable) is not bool:
        raise ValueError(f"size {entry.bytes!r}, executable {entry.executable!r}")
    if not _SHA256.fullmatch(entry.sha256):
        raise ValueError(f"sha256 {entry.sha256!r}")
    return entry
