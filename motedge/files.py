"""Writing files so that nothing half-written stays: beside the target first, then renamed over it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Union

from motedge.errors import HostError, UsageError
from motedge.units import format_bytes

PathLike = Union[str, "os.PathLike[str]"]
PARTIAL_SUFFIX = ".partial"
# Some kernels take many times longer for one write of 40 MB than for 40 of 1 MB (docs/log.md)
CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def atomic_path(target: PathLike) -> Iterator[Path]:
    """Yields a path beside `target`; renames it over `target` on success, deletes it on any failure.

    Raises:
        UsageError: the target's folder is a file, or lies in one.
        HostError: the disk is full or not writable; nothing is left behind.
    """
    final = Path(target)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _place_error(error, final) from error
    partial = final.with_name(final.name + PARTIAL_SUFFIX)
    try:
        yield partial
        partial.replace(final)
    except OSError as error:
        raise disk_error(error, final) from error
    finally:
        if partial.exists():
            partial.unlink()


@contextlib.contextmanager
def atomic_open(target: PathLike, mode: str = "wb") -> Iterator[IO[Any]]:
    """Like `open(target, mode)` for writing, through `atomic_path`; flushed to disk before the rename."""
    encoding = None if "b" in mode else "utf-8"
    with atomic_path(target) as partial, open(partial, mode, encoding=encoding) as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def write_chunks(stream: IO[bytes], data: memoryview) -> None:
    """Writes bytes in pieces of a size that kernels like."""
    for start in range(0, len(data), CHUNK_BYTES):
        stream.write(data[start : start + CHUNK_BYTES])


def disk_error(error: OSError, path: Path) -> Exception:
    """Turns an OSError about storage into a HostError; any other comes back unchanged."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(nearest_existing(path)).free
        return HostError(
            f"the disk is full while writing {path}",
            got=f"{format_bytes(free)} free",
            fix="free some space or give another folder; what was half-written has been removed",
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return HostError(f"can't write {path}", why=os.strerror(error.errno), fix="choose a folder you may write to")
    return error


def require_writable(target: PathLike) -> None:
    """Raises before any work what `atomic_path` would raise at its end. Makes nothing, folders neither.

    Raises:
        UsageError: the target is a folder, its name is too long, or its folder is a file.
        HostError: the folder, or the one that it would be made in, is not writable.
    """
    final = Path(target)
    try:
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with contextlib.suppress(FileNotFoundError):
            final.with_name(final.name + PARTIAL_SUFFIX).stat()
        if not os.access(nearest_existing(final.parent), os.W_OK + os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _place_error(error, final) from error


def _place_error(error: OSError, path: Path) -> Exception:
    """As `disk_error`, and a UsageError for a path at which there can be no file."""
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
        fix = "choose another file or folder"
        return UsageError(f"can't write {path}", why=os.strerror(error.errno), fix=fix)
    return disk_error(error, path)


def require_free(folder: PathLike, needed_bytes: int, purpose: str) -> None:
    """Raises HostError before any work when `folder`'s disk has less than `needed_bytes` free."""
    free = shutil.disk_usage(nearest_existing(Path(folder))).free
    if free < needed_bytes:
        raise HostError(
            f"too little disk space for {purpose}",
            expected=format_bytes(needed_bytes),
            got=f"{format_bytes(free)} free in {folder}",
            fix="free some space or give another folder",
        )


def nearest_existing(path: Path) -> Path:
    """The path itself, or its first parent that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


# A list of numbers, which is indented one a line. Strings hold no bare line break, so it is never part of one
_NUMBER = r"(?:-?[0-9][-+.0-9eE]*|null|true|false)"
_NUMBERS = re.compile(rf"\[\s+{_NUMBER}(?:,\n\s+{_NUMBER})*\s+\]")


def write_json(target: PathLike, value: Any, *, samples: bool = False) -> None:
    """Writes `value` as indented, key-ordered-as-given JSON, atomically. NaN is refused: it is not JSON.

    Args:
        target: the file.
        value: what `json.dumps` takes.
        samples: `value` holds long lists of numbers; each is put on one line.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if samples:
        text = _NUMBERS.sub(lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text)
    with atomic_open(target, "w") as stream:
        stream.write(text)


def sha256_file(path: PathLike) -> str:
    """The hex sha256 of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def copy_file(source: PathLike, target: PathLike) -> None:
    """Copies a file atomically; the kernel shares the blocks (reflink) where the file system can."""
    with atomic_path(target) as partial, open(source, "rb") as reader, open(partial, "wb") as writer:
        if not _reflink(reader.fileno(), writer.fileno()):
            shutil.copyfileobj(reader, writer, CHUNK_BYTES)


def _reflink(source_fd: int, target_fd: int) -> bool:
    ficlone = 0x40049409  # linux/fs.h, _IOW(0x94, 9, int)
    try:
        import fcntl

        fcntl.ioctl(target_fd, ficlone, source_fd)
    except (ImportError, OSError):
        return False
    return True
