"""Unpacking into a folder of its own: each byte checked on its way, all of it on disk before the folder has a name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from motedge.files import disk_error, sha256_file
from motedge.targets.install.archive import Archive
from motedge.targets.install.listing import LISTING, SIGNATURE

# Bytes that are done, of so many
Progress = Callable[[int, int], None]
# Set-user-id and the like can't come out of an archive: its modes are one bit
_MODE, _MODE_EXECUTABLE = 0o644, 0o755


def unpack(archive: Archive, folder: Path, progress: Progress) -> None:
    """Writes everything into `folder`, which must not exist yet, and flushes it to disk.

    Raises:
        BundleError: a damaged archive. The caller removes the folder.
        HostError: the disk is full, or not writable.
    """
    folders = {folder}
    done, total = 0, archive.listing.total_bytes
    path = folder
    try:
        folder.mkdir(parents=True)
        for name, entry, chunks in archive.files():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.update(parent for parent in path.parents if folder in parent.parents)
            with _create(path, entry.executable) as stream:
                for chunk in chunks:
                    _write_all(stream, chunk)
                    done += len(chunk)
                    progress(done, total)
        for name, content in _first(archive):
            path = folder / name
            with _create(path, False) as stream:
                _write_all(stream, content)
        for each in sorted(folders, reverse=True):
            sync_folder(each)
    except OSError as error:
        raise disk_error(error, path) from error


def verify_stream(archive: Archive, progress: Progress) -> None:
    """Reads an archive to its end and writes nothing; BundleError where it is damaged."""
    done, total = 0, archive.listing.total_bytes
    for _, _, chunks in archive.files():
        for chunk in chunks:
            done += len(chunk)
            progress(done, total)


def differing(folder: Path, archive: Archive) -> Iterator[str]:
    """Files of an unpacked bundle that are missing or not as in this archive; reads all bytes of the folder's."""
    for name, content in _first(archive):
        if not (folder / name).is_file() or (folder / name).read_bytes() != content:
            yield name
    for name, entry in archive.listing.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
            yield name


def _first(archive: Archive) -> list[tuple[str, bytes]]:
    """What stands before the files of an archive."""
    found = [(LISTING, archive.listing_bytes)]
    return found if archive.signature is None else [*found, (SIGNATURE, archive.signature)]


def sync_folder(folder: Path) -> None:
    """Makes names that were written into a folder outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _create(path: Path, executable: bool) -> Iterator[IO[bytes]]:
    """A new file, flushed to disk when all went well. "x" neither overwrites nor follows a link (O_EXCL)."""
    with open(path, "xb", buffering=0) as stream:
        os.fchmod(stream.fileno(), _MODE_EXECUTABLE if executable else _MODE)
        yield stream
        os.fsync(stream.fileno())


def _write_all(stream: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        # Unbuffered: as much as the disk took
        view = view[stream.write(view) :]
