"""Building a whole folder beside its place, and moving it there at the end."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from motedge.checkpoint.provenance import RECORD
from motedge.errors import UsageError
from motedge.files import PARTIAL_SUFFIX, disk_error

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target`; renames it to `target` on success, deletes it on any failure.

    Raises:
        UsageError: `target` exists and is not empty, or another folder stands where the new one must be built.
        HostError: the disk is full or not writable; nothing is left behind.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already", fix="give another folder, or delete this one")
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    if partial.exists():
        _remove_stale(partial)
    try:
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            target.rmdir()
        partial.replace(target)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        # Also on KeyboardInterrupt and SystemExit
        if partial.exists():
            shutil.rmtree(partial, ignore_errors=True)


def _remove_stale(partial: Path) -> None:
    """Deletes what a killed run left, but only what is recognisably such."""
    if any(partial.iterdir()) and not (partial / RECORD).exists():
        raise UsageError(
            f"{partial} is in the way", why="it is not a checkpoint that motedge began", fix="move or delete it"
        )
    _log.warning("removing %s, left by a run that was killed", partial)
    shutil.rmtree(partial)
