"""From an archive to the active bundle: judged, unpacked beside the others, built, and only then switched to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional

from motedge.errors import BundleError
from motedge.files import require_free
from motedge.targets.install.archive import Archive
from motedge.targets.install.listing import PackListing, bundle_id
from motedge.targets.install.store import Store
from motedge.targets.install.trust import SYSTEM_FILE, check_signature, demands
from motedge.targets.install.unpack import Progress, differing, unpack, verify_stream

_log = logging.getLogger(__name__)
# The folder of the unpacked bundle and what pack.json says of it
Check = Callable[[PackListing], None]
Build = Callable[[Path, PackListing], None]


@dataclass(frozen=True)
class InstallOptions:
    """How to install."""

    # A public key of minisign, or the file of one, that must have signed
    require_signature: Optional[str] = None
    # Raises where the bundle is not for this machine; None: any machine
    check: Optional[Check] = None
    # Makes what has to be made on the device, before the bundle becomes active; None: nothing
    build: Optional[Build] = None
    # Bytes that `build` will take beside the unpacked files
    build_bytes: Callable[[PackListing], int] = lambda listing: 0
    # Make it the active one
    activate: bool = True
    # How many bundles stay installed, this one included
    keep: int = 2
    progress: Progress = lambda done, total: None
    # The device's own trust file
    trust_file: Path = SYSTEM_FILE


@dataclass(frozen=True)
class InstallReport:
    """What an installation did."""

    id: str
    path: Path
    listing: PackListing
    # Name of the key that signed; None: not signed
    key: Optional[str]
    # Whether anybody here knows that key
    trusted: bool
    # Whether all of it was there already, as packed
    unchanged: bool
    # Files of an installed bundle that were damaged and are mended
    mended: tuple[str, ...]
    removed: tuple[str, ...]


def install(stream: IO[bytes], root: Path, options: InstallOptions) -> InstallReport:
    """Installs an archive.

    Args:
        stream: the archive; read forward only.
        root: the store's folder.
        options: how.

    Raises:
        BundleError: a damaged archive, or a signature that does not satisfy this device; nothing of it is written.
        HostError: another machine's archive, too little disk, another installation at work.
        MotedgeError: what `build` raises; the bundle stays installed, the former one active.
    """
    archive, key, trusted = _judge(stream, options)
    listing = archive.listing
    store = Store(root)
    name = bundle_id(listing.name, archive.listing_bytes)
    with store.lock():
        # Asked early: a foreign `current` is found before gigabytes are written
        before = store.current
        here = store.path(name).is_dir()
        mended = tuple(differing(store.path(name), archive)) if here else ()
        unchanged = here and not mended
        if not unchanged:
            room = listing.total_bytes + (options.build_bytes(listing) if options.build else 0)
            require_free(root, room, f"the bundle {name}")
            _bring(archive, store, name, mended, options.progress)
        if options.build is not None:
            options.build(store.path(name), listing)
        removed: list[str] = []
        if options.activate:
            store.activate(name)
            removed = store.prune(options.keep, protect=[name])
            _log.info("%s is active, %s before", name, before or "nothing")
    return InstallReport(name, store.path(name), listing, key, trusted, unchanged, mended, tuple(removed))


def check(stream: IO[bytes], root: Path, options: InstallOptions) -> InstallReport:
    """Everything that `install` looks at, every byte of the archive included; writes nothing. Errors as there."""
    archive, key, trusted = _judge(stream, options)
    listing = archive.listing
    require_free(root, listing.total_bytes + (options.build_bytes(listing) if options.build else 0), "the bundle")
    verify_stream(archive, options.progress)
    name = bundle_id(listing.name, archive.listing_bytes)
    return InstallReport(name, Store(root).path(name), listing, key, trusted, False, (), ())


def _judge(stream: IO[bytes], options: InstallOptions) -> tuple[Archive, Optional[str], bool]:
    """Reads pack.json and its signature and decides; nothing else of the archive is read before."""
    wanted = demands(options.require_signature, options.trust_file)
    archive = Archive(stream)
    signature = check_signature(archive.listing_bytes, archive.signature, wanted)
    if options.check is not None:
        options.check(archive.listing)
    if signature is None:
        _log.warning("the bundle is not signed, and nothing here demands it")
        return archive, None, False
    if not wanted:
        _log.warning(
            "the bundle claims the key %s; no key is known here that it could be held against", signature.key_name
        )
    return archive, signature.key_name, bool(wanted)


def _bring(archive: Archive, store: Store, name: str, damaged: tuple[str, ...], progress: Progress) -> None:
    """Unpacks, and publishes; or mends files of the bundle that is there, each by one rename."""
    with store.incoming(name) as folder:
        unpack(archive, folder, progress)
        if not damaged:
            store.publish(folder, name)
            return
        _log.warning("%s is installed and damaged: %d files are mended", name, len(damaged))
        for file in damaged:
            target = store.path(name) / file
            if target.is_dir() and not target.is_symlink():
                raise BundleError(f"{target} is a folder where a file belongs", fix="remove it and install again")
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / file).replace(target)
