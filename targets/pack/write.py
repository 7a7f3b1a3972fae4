"""Writing the archive: plain tar, files in order, no trace of who packed when; content passes through in pieces."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Union

from motedge.errors import BundleError
from motedge.files import CHUNK_BYTES, atomic_open
from motedge.targets.install.listing import LISTING, SIGNATURE, PackedFile

# Bytes that are done, of so many
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Member:
    """One file of the archive, by its path there."""

    name: str
    # Where the content is, or the content
    source: Union[Path, bytes]
    entry: PackedFile

    @classmethod
    def of_bytes(cls, name: str, content: bytes, executable: bool = False) -> Member:
        """A file that is made here."""
        return cls(name, content, PackedFile(hashlib.sha256(content).hexdigest(), len(content), executable))


def write_archive(
    out: Path, listing: bytes, signature: Union[bytes, None], members: Sequence[Member], progress: Progress
) -> str:
    """Writes the archive, or nothing.

    Args:
        out: the file.
        listing: pack.json.
        signature: pack.json.minisig, or None.
        members: everything else.
        progress: called as bytes go by.

    Returns:
        the archive's sha256.

    Raises:
        BundleError: a file of the bundle is not what the manifest says.
        HostError: the disk is full or not writable.
    """
    total, done = sum(member.entry.bytes for member in members), 0
    with atomic_open(out) as stream:
        sink = _Hashed(stream)
        first = [Member.of_bytes(LISTING, listing)]
        if signature is not None:
            first.append(Member.of_bytes(SIGNATURE, signature))
        for member in (*first, *sorted(members, key=lambda m: m.name)):
            sink.write(_header(member))
            if isinstance(member.source, bytes):
                _copy(io.BytesIO(member.source), sink, member, done, total, progress)
            else:
                with _open(member) as reader:
                    _copy(reader, sink, member, done, total, progress)
            done += member.entry.bytes if member not in first else 0
        # POSIX: two blocks of zeros end an archive
        sink.write(bytes(2 * tarfile.BLOCKSIZE))
        return sink.digest.hexdigest()


class _Hashed:
    """A file that knows the sha256 of what was written to it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.digest = stream, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self.digest.update(data)


def _header(member: Member) -> bytes:
    info = tarfile.TarInfo(member.name)
    info.size, info.mode = member.entry.bytes, 0o755 if member.entry.executable else 0o644
    # GNU's form says sizes of 8 GiB and more in the one header there is, which pax and ustar do not
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _open(member: Member) -> IO[bytes]:
    try:
        return open(str(member.source), "rb")
    except FileNotFoundError as error:
        raise BundleError(f"{member.name} is missing", fix="copy the bundle again, or export again") from error


def _copy(reader: IO[bytes], sink: _Hashed, member: Member, done: int, total: int, progress: Progress) -> None:
    digest, size = hashlib.sha256(), 0
    while chunk := reader.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        if size > member.entry.bytes:
            break
        sink.write(chunk)
        progress(done + size, total)
    if size != member.entry.bytes or digest.hexdigest() != member.entry.sha256:
        raise BundleError(
            f"{member.name} differs from what was exported or built",
            expected=f"{member.entry.bytes} bytes, sha256 {member.entry.sha256}",
            got=f"{size} bytes, sha256 {digest.hexdigest()}" if size <= member.entry.bytes else "more bytes",
            why="it was changed or damaged since; its numbers can't be trusted",
            fix="motedge inspect BUNDLE --check names all such files; copy them again, or export again",
        )
    sink.write(bytes(-size % tarfile.BLOCKSIZE))
