"""Bundles side by side on a device, one of them active.

DIR/
  current -> bundles/NAME-1a2b3c4d5e6f     what programs open; exchanged by one rename
  bundles/NAME-1a2b3c4d5e6f/               whole bundles alone: the name comes last
  history.json                             what was active in turn, for the way back
  lock                                     held by whoever changes anything here

Power may fail at any instruction: `current` then points to what it pointed to before or after, both whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from motedge.errors import BundleError, HostError, UsageError, closest
from motedge.files import disk_error, write_json
from motedge.targets.install.history import HISTORY, read_history
from motedge.targets.install.listing import LISTING, PackListing
from motedge.targets.install.unpack import sync_folder

CURRENT, BUNDLES, LOCK = "current", "bundles", "lock"
# Names of what is not there yet, and of what is there no longer; a bundle's name begins with a letter or digit
_INCOMING, _REMOVED, _LINK = ".incoming-", ".removed-", ".current-"


@dataclass(frozen=True)
class Installed:
    """One bundle of a store."""

    id: str
    path: Path
    active: bool
    # None where pack.json can't be read
    listing: Optional[PackListing]


class Store:
    """The folder that bundles are installed in."""

    def __init__(self, root: Path) -> None:
        self.root, self.bundles = root, root / BUNDLES

    @property
    def current(self) -> Optional[str]:
        """Id of the active bundle; None before the first.

        Raises:
            HostError: `current` is something that this class did not make.
        """
        link = self.root / CURRENT
        if not link.is_symlink():
            if link.exists():
                raise HostError(f"{link} is not a link", fix="give another --root, or move it away")
            return None
        parts = link.readlink().parts
        if len(parts) != 2 or parts[0] != BUNDLES:
            raise HostError(
                f"{link} points to something else", expected=f"{BUNDLES}/NAME", got=link.readlink(), fix="remove it"
            )
        return parts[1]

    def installed(self) -> list[Installed]:
        """All bundles by id."""
        if not self.bundles.is_dir():
            return []
        current = self.current
        names = sorted(path.name for path in self.bundles.iterdir() if not path.name.startswith(".") and path.is_dir())
        return [Installed(name, self.path(name), name == current, self._listing(name)) for name in names]

    def path(self, name: str) -> Path:
        """The folder of a bundle."""
        return self.bundles / name

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from changing the store; what killed ones left half-done is removed.

        Raises:
            HostError: another process is at it, or the folder can't be written to.
        """
        import fcntl

        try:
            self.bundles.mkdir(parents=True, exist_ok=True)
            # The file stays: removing it would let two processes hold two locks of one name
            stream = open(self.root / LOCK, "ab")  # noqa: SIM115 -- closed below
        except OSError as error:
            raise disk_error(error, self.root) from error
        try:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX + fcntl.LOCK_NB)
            except OSError as error:
                raise HostError(
                    f"another process is changing {self.root}",
                    why="only one at a time may install, switch or remove bundles",
                    fix="wait until it has ended, then try again",
                ) from error
            self._clean()
            yield
        finally:
            stream.close()

    @contextlib.contextmanager
    def incoming(self, name: str) -> Iterator[Path]:
        """A folder to unpack into; it is removed unless `publish` took it."""
        folder = self.bundles / f"{_INCOMING}{name}"
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, name: str) -> None:
        """Gives an unpacked folder its name; from then on it counts as installed."""
        folder.rename(self.path(name))
        sync_folder(self.bundles)

    def activate(self, name: str) -> None:
        """Makes a bundle the active one; UsageError where there is none of this name."""
        known = [entry.id for entry in self.installed()]
        if name not in known:
            fix = closest(name, known) if known else "motedge install FILE --root DIR"
            raise UsageError(f"no bundle {name!r} is installed in {self.root}", fix=fix)
        self._require_whole(name)
        before = self.current
        activated = read_history(self.root)
        if before is not None:
            # What lies behind the active one was left by a way back, or by a switch that did not happen
            activated = [*_until(activated, before)]
        if before != name:
            write_json(self.root / HISTORY, {"schema": "motedge.install/v1", "activated": [*activated, name]})
        self._switch(name)

    def rollback(self) -> tuple[str, str]:
        """Makes the bundle active that was so before; returns (from, to).

        Raises:
            UsageError: there is none, or it was removed.
        """
        current = self.current
        earlier = [] if current is None else _until(read_history(self.root), current)[:-1]
        known = {entry.id for entry in self.installed()}
        for name in reversed(earlier):
            if name in known and name != current:
                self._require_whole(name)
                self._switch(name)
                return str(current), name
        raise UsageError(
            "there is nothing to go back to",
            expected=f"a bundle in {self.root} that was active before",
            got=f"{current or 'no bundle'} is active, and no earlier one is installed",
            fix="motedge install --list --root DIR, then --activate NAME",
        )

    def prune(self, keep: int, protect: Sequence[str] = ()) -> list[str]:
        """Removes bundles that were not active lately, so that `keep` are left; the active one always is.

        Returns:
            ids of what was removed.
        """
        current = self.current
        order = [] if current is None else _until(read_history(self.root), current)
        recent = list(dict.fromkeys(reversed(order)))
        known = [entry.id for entry in self.installed()]
        ranked = [name for name in recent if name in known] + [name for name in known if name not in recent]
        kept = {*ranked[: max(keep, 1)], *protect, *([current] if current else [])}
        removed = [name for name in ranked if name not in kept]
        for name in removed:
            gone = self.bundles / f"{_REMOVED}{name}"
            self.path(name).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        return removed

    def _switch(self, name: str) -> None:
        link = self.root / f"{_LINK}{os.getpid()}"
        try:
            link.symlink_to(f"{BUNDLES}/{name}")
            link.replace(self.root / CURRENT)
            sync_folder(self.root)
        except OSError as error:
            raise disk_error(error, self.root / CURRENT) from error

    def _require_whole(self, name: str) -> None:
        """Every file is there with its size; the content was checked when it came."""
        listing = self._listing(name)
        for file, entry in (listing.files if listing is not None else {LISTING: None}).items():
            path = self.path(name) / file
            if not path.is_file() or (entry is not None and path.stat().st_size != entry.bytes):
                raise BundleError(
                    f"bundle {name} is damaged, and stays as it is: not active",
                    got=f"{file} is missing or of another size",
                    fix="install it again from its archive, which mends it",
                )

    def _listing(self, name: str) -> Optional[PackListing]:
        try:
            return PackListing.from_bytes((self.path(name) / LISTING).read_bytes())
        except (OSError, BundleError):
            return None

    def _clean(self) -> None:
        """What a process that was killed left behind."""
        for path in (*self.bundles.glob(f"{_INCOMING}*"), *self.bundles.glob(f"{_REMOVED}*")):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.root.glob(f"{_LINK}*"):
            path.unlink()


def _until(activated: list[Any], name: str) -> list[Any]:
    """The history up to the last time that `name` became active; just `name` where it is not in there."""
    if name not in activated:
        return [name]
    return activated[: len(activated) - activated[::-1].index(name)]
