"""Appends records to a ring on disk that never takes more than it may."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Optional

from motedge.errors import HostError, UsageError
from motedge.files import PathLike, disk_error
from motedge.runtime.recorder.segment import (
    MAGIC,
    OVERHEAD_BYTES,
    encode_record,
    last_sequence,
    segment_path,
    segments,
)
from motedge.units import format_bytes

LOCK = "ring.lock"
# The oldest part that is lost at once, as a share of the ring
_SEGMENTS = 8
LEAST_BYTES = 64 << 10


class RingWriter:
    """The one process that writes a ring; begins a segment of its own.

    Records lie in the operating system's memory once `append` returns: they survive this process, but not a loss of
    power within the next seconds, unless `durable`. Only the user whose process this is may read them: they hold what
    cameras saw.

    Args:
        folder: of the ring, made if it is not there, for this user alone.
        max_bytes: what all segments together may take.
        head: gives the payload that begins each segment, so that a segment stands for itself when older ones are gone.
        durable: waits for the disk after every record.

    Raises:
        UsageError: too few bytes, or the folder is a file.
        HostError: the disk can't be written, or another process writes this ring.
    """

    def __init__(
        self,
        folder: PathLike,
        max_bytes: int,
        *,
        head: Optional[Callable[[], bytes]] = None,
        durable: bool = False,
    ) -> None:
        if max_bytes < LEAST_BYTES:
            raise UsageError(
                "the ring is too small", expected=f"at least {format_bytes(LEAST_BYTES)}", got=format_bytes(max_bytes)
            )
        self._root, self._max_bytes, self._head, self._durable = Path(folder), max_bytes, head, durable
        self._segment_bytes = max_bytes // _SEGMENTS
        self._stream: Optional[IO[bytes]] = None
        self._size = 0
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(self._root / LOCK)
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(f"{folder} can't hold a ring", expected="a folder", got="a file") from error
        except OSError as error:
            raise disk_error(error, self._root) from error
        there = segments(self._root)
        self._number = there[-1][0] if there else 0
        known = [last for _, path in reversed(there) if (last := last_sequence(path)) is not None]
        self._sequence = known[0] + 1 if known else 0

    @property
    def max_record_bytes(self) -> int:
        """The largest payload that is taken: half of the ring, the head of its segment included."""
        return self._max_bytes // 2

    def append(self, payload: bytes) -> int:
        """Writes a record and returns its sequence.

        Raises:
            UsageError: it is larger than `max_record_bytes`.
            HostError: the disk is full or not writable; the record is not there, those before it are.
        """
        head = self._head() if self._head is not None and self._begins(len(payload)) else b""
        if len(payload) + len(head) > self.max_record_bytes:
            raise UsageError(
                "a record is too large for the ring",
                expected=f"at most {format_bytes(self.max_record_bytes)}",
                got=format_bytes(len(payload) + len(head)),
                fix="give the ring more bytes",
            )
        try:
            if self._begins(len(payload)):
                self._begin(len(payload) + len(head))
                if head:
                    self._write(head)
            return self._write(payload)
        except OSError as error:
            self._abandon()
            raise disk_error(error, self._root) from error

    def close(self) -> None:
        """Ends the segment and lets others write the ring; harmless when repeated."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                os.fsync(stream.fileno())
            stream.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _begins(self, payload_bytes: int) -> bool:
        """Whether a record of so many bytes begins a segment."""
        return self._stream is None or self._size + OVERHEAD_BYTES + payload_bytes > self._segment_bytes

    def _begin(self, needed_bytes: int) -> None:
        if self._stream is not None:
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._stream = None
        room = max(self._segment_bytes, len(MAGIC) + 2 * OVERHEAD_BYTES + needed_bytes)
        there = segments(self._root)
        taken = sum(path.stat().st_size for _, path in there)
        for _, path in there:
            if taken + room <= self._max_bytes:
                break
            taken -= path.stat().st_size
            path.unlink()
        self._number += 1
        # Unbuffered: what is written has left this process
        self._stream = open(  # noqa: SIM115
            segment_path(self._root, self._number), "xb", buffering=0, opener=_private
        )
        self._stream.write(MAGIC)
        if self._durable:
            # A file whose name is not on the disk is lost with all that is in it
            _sync_folder(self._root)
        self._size = len(MAGIC)

    def _write(self, payload: bytes) -> int:
        stream = self._stream
        if stream is None:
            raise HostError("the ring is closed", fix="open it again")
        record = memoryview(encode_record(self._sequence, payload))
        written = 0
        while written < len(record):
            written += stream.write(record[written:])
        if self._durable:
            os.fsync(stream.fileno())
        self._size += len(record)
        self._sequence += 1
        return self._sequence - 1

    def _abandon(self) -> None:
        """After a failure the segment may end in half a record: what comes next begins another one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                # Half a record would only be recognised as torn; gone is better
                stream.truncate(self._size)
            with contextlib.suppress(OSError):
                stream.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(path: Path) -> Optional[Any]:
    """An open file that keeps other processes away until it is closed, however this one ends.

    Raises:
        HostError: another process has it.
    """
    try:
        import fcntl
    except ImportError:
        # Not on Windows, which no device here runs
        return None
    stream = open(path, "ab", opener=_private)  # noqa: SIM115 -- held until the ring is closed
    try:
        fcntl.flock(stream, fcntl.LOCK_EX + fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise HostError(f"another process records into {path.parent}", fix="end it, or give another folder") from error
    return stream
