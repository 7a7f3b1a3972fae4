"""The files of a ring. A folder of segments, of which the oldest goes when a new one is begun.

    DIR/ring-00000007.seg      MAGIC, then records one after the other
    record                     length u32, crc32 u32 of what follows, sequence u64, payload (length bytes)

Numbers are little endian. A record counts up the sequence of the whole ring, so that a gap shows. What a crash has
torn off at the end of a segment fails its checksum or ends too early; a segment is never continued by another process.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional

MAGIC = b"motedge-ring/v1\n"
HEAD = struct.Struct("<II")
SEQUENCE = struct.Struct("<Q")
OVERHEAD_BYTES = HEAD.size + SEQUENCE.size
_NAME = re.compile(r"ring-(\d{8})\.seg")


@dataclass(frozen=True)
class Record:
    """One record, whole."""

    sequence: int
    payload: bytes


@dataclass(frozen=True)
class Damage:
    """Where a segment can't be read."""

    segment: str
    # Bytes from the start of the file
    offset: int
    # "torn" at the end, as a crash leaves it; "damaged" elsewhere
    kind: str
    why: str


def segment_path(folder: Path, number: int) -> Path:
    """Where the segment of a number lies."""
    return folder / f"ring-{number:08d}.seg"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """The segments of a folder, the oldest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match is not None and path.is_file():
            found.append((int(match.group(1)), path))
    return sorted(found)


def encode_record(sequence: int, payload: bytes) -> bytes:
    """A record as it lies in a segment."""
    rest = SEQUENCE.pack(sequence) + payload
    return HEAD.pack(len(payload), zlib.crc32(rest)) + rest


def read_segment(path: Path, damage: Optional[list[Damage]] = None) -> Iterator[Record]:
    """The records of a segment that are whole, in order. A damaged one ends it: lengths after it are not to be trusted.

    Args:
        path: of the segment.
        damage: gets what could not be read.
    """
    found = [] if damage is None else damage
    size = path.stat().st_size
    with open(path, "rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            kind = "torn" if size < len(MAGIC) else "damaged"
            found.append(Damage(path.name, 0, kind, "it does not begin as a segment does"))
            return
        offset = len(MAGIC)
        while offset < size:
            record, why, end = _next(stream, size - offset)
            if record is None:
                kind = "torn" if offset + end >= size else "damaged"
                found.append(Damage(path.name, offset, kind, why))
                return
            yield record
            offset += end


def last_sequence(path: Path) -> Optional[int]:
    """Of the last whole record of a segment; None without one."""
    last = None
    for record in read_segment(path):
        last = record.sequence
    return last


def _next(stream: IO[bytes], left: int) -> tuple[Optional[Record], str, int]:
    """The record here or None, why there is none, and how many bytes it takes or claims to."""
    if left < OVERHEAD_BYTES:
        return None, f"{left} bytes where a record's head should be", left
    length, checksum = HEAD.unpack(stream.read(HEAD.size))
    claimed = OVERHEAD_BYTES + length
    if claimed > left:
        return None, f"a record of {claimed} bytes of which {left} are there", claimed
    rest = stream.read(SEQUENCE.size + length)
    if zlib.crc32(rest) != checksum:
        return None, "the checksum of a record is wrong", claimed
    return Record(SEQUENCE.unpack_from(rest)[0], rest[SEQUENCE.size :]), "", claimed
