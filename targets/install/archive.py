"""Reading an archive of an origin that is not trusted: strictly forward, nothing believed that pack.json does not say.

The format is plain tar, so that any tar can unpack it; the reader takes only what `motedge pack` writes of tar. Links,
devices, folders, sparse files, and headers that speak of other headers (long names, pax) are refused: they are what tar
readers are attacked with, and a pax header may claim gigabytes that a reader would hold in memory. The order of files
is fixed, pack.json first, its signature next, so that a stream can be judged before anything of it is written.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from typing import IO, Optional

from motedge.errors import BundleError
from motedge.files import CHUNK_BYTES
from motedge.targets.install.listing import LISTING, LISTING_BYTES_MAX, SIGNATURE, PackedFile, PackListing

_BLOCK = tarfile.BLOCKSIZE
# minisign's signatures have about 350 bytes; a comment may be longer
_SIGNATURE_BYTES_MAX = 16_384
_COMPRESSED = {b"\x1f\x8b": "gzip -dc", b"\x28\xb5\x2f\xfd": "zstd -dc", b"BZ": "bzip2 -dc", b"\xfd7zXZ": "xz -dc"}
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a pipe",
}
_FIX = "fetch the archive again, or pack again"


class Archive:
    """An archive whose listing and signature have been read, and nothing else yet.

    Attributes:
        listing: what pack.json says; not trusted until its signature is checked.
        listing_bytes: pack.json as it is in the archive: what a signature is over.
        signature: pack.json.minisig, None where the archive has none.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        """Reads pack.json and its signature.

        Args:
            stream: read forward only; a pipe will do. The caller closes it.

        Raises:
            BundleError: not such an archive, truncated, or a listing that is not allowed.
        """
        self._stream = stream
        first = self._header(start=True)
        if first is None or first.name != LISTING or first.size > LISTING_BYTES_MAX:
            raise _foreign(None if first is None else first.name)
        self.listing_bytes = self._content(first)
        self.listing = PackListing.from_bytes(self.listing_bytes)
        self._next = self._header()
        self.signature: Optional[bytes] = None
        if self._next is not None and self._next.name == SIGNATURE:
            if self._next.size > _SIGNATURE_BYTES_MAX:
                raise BundleError(f"{SIGNATURE} is too long", got=f"{self._next.size} bytes", fix=_FIX)
            self.signature = self._content(self._next)
            self._next = self._header()

    def files(self) -> Iterator[tuple[str, PackedFile, Iterator[bytes]]]:
        """Every file in order: its name, its entry, and its content in pieces; the content must be read to its end.

        Raises:
            BundleError: a file that is not the listing's next one, of another size or sha256, or cut off.
        """
        for name in sorted(self.listing.files):
            entry, info = self.listing.files[name], self._next
            if info is None or info.name != name or info.size != entry.bytes:
                raise BundleError(
                    f"the archive does not hold what its {LISTING} lists",
                    expected=f"{name} of {entry.bytes} bytes",
                    got="its end" if info is None else f"{info.name} of {info.size} bytes",
                    fix=_FIX,
                )
            yield name, entry, self._checked(name, entry)
            self._next = self._header()
        if self._next is not None:
            raise BundleError(
                f"the archive holds a file that its {LISTING} does not list", got=self._next.name, fix=_FIX
            )

    def _checked(self, name: str, entry: PackedFile) -> Iterator[bytes]:
        digest, left = hashlib.sha256(), entry.bytes
        while left:
            chunk = self._read(min(left, CHUNK_BYTES), name)
            left -= len(chunk)
            digest.update(chunk)
            yield chunk
        self._skip_padding(entry.bytes, name)
        if digest.hexdigest() != entry.sha256:
            raise BundleError(
                f"{name} differs from what was packed",
                expected=f"sha256 {entry.sha256}",
                got=f"sha256 {digest.hexdigest()}",
                why="it was changed or damaged since",
                fix=_FIX,
            )

    def _content(self, info: tarfile.TarInfo) -> bytes:
        data = self._read(info.size, info.name)
        self._skip_padding(info.size, info.name)
        return data

    def _skip_padding(self, size: int, name: str) -> None:
        if self._read(-size % _BLOCK, name).strip(b"\0"):
            raise BundleError("the archive is damaged", got=f"something behind the end of {name}", fix=_FIX)

    def _read(self, count: int, name: str) -> bytes:
        """Exactly so many bytes; pipes give them in pieces."""
        pieces = []
        left = count
        while left:
            piece = self._stream.read(left)
            if not piece:
                raise BundleError("the archive ends too early", got=f"it is cut off within {name}", fix=_FIX)
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _header(self, *, start: bool = False) -> Optional[tarfile.TarInfo]:
        """The next file's header, None at the archive's end."""
        block = self._read(_BLOCK, "a header") if not start else self._first_block()
        if not start and not block.strip(b"\0"):
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            if start:
                raise _foreign(block) from error
            raise BundleError(
                "the archive is damaged", got=f"no header where one must be: {error}", fix=_FIX
            ) from error
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.size < 0:
            raise BundleError(
                "the archive holds something that is no plain file",
                expected="plain files alone, as motedge pack writes them",
                got=f"{_KINDS.get(info.type, f'an entry of type {info.type!r}')} named {info.name!r}",
                why="links and devices in archives serve to write outside the folder that they are unpacked into",
                fix="don't use it; pack again",
            )
        return info

    def _first_block(self) -> bytes:
        try:
            return self._read(_BLOCK, LISTING)
        except BundleError as error:
            raise _foreign(None) from error


def _foreign(found: object) -> BundleError:
    """What is said of a file that is no archive of motedge's."""
    unpacker = None
    if isinstance(found, bytes):
        unpacker = next((tool for magic, tool in _COMPRESSED.items() if found.startswith(magic)), None)
    if unpacker is not None:
        return BundleError(
            "the archive is compressed", fix=f"{unpacker} FILE | motedge install - --root DIR   (weights hardly shrink)"
        )
    return BundleError(
        "this is not an archive of motedge pack",
        expected=f"a tar file that begins with {LISTING}",
        got=found if isinstance(found, str) else "no tar file",
        fix="motedge pack BUNDLE --target T --out FILE",
    )
