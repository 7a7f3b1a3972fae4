"""Reading archives: what motedge pack writes is read back; everything else that tar can say is refused."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed import FILES, archive_of, entry, make_archive, make_listing, packed, stream

from motedge.errors import BundleError
from motedge.targets.install import Archive
from motedge.targets.install.listing import LISTING, LISTING_BYTES_MAX, SIGNATURE


def _read(data: bytes) -> dict[str, bytes]:
    return {name: b"".join(chunks) for name, _, chunks in Archive(stream(data)).files()}


def test_every_file_comes_back() -> None:
    archive = Archive(stream(make_archive(signature=b"sig")))
    assert archive.listing == make_listing() and archive.signature == b"sig"
    assert {name: b"".join(chunks) for name, _, chunks in archive.files()} == FILES


def test_any_tar_can_unpack_it(tmp_path: Path) -> None:
    with tarfile.open(fileobj=stream(make_archive())) as plain:
        assert plain.getnames() == [LISTING, *sorted(FILES)]


def test_a_pipe_gives_bytes_in_pieces() -> None:
    reader, writer = os.pipe()
    data = make_archive()

    def feed() -> None:
        with os.fdopen(writer, "wb") as out:
            for start in range(0, len(data), 700):
                out.write(data[start : start + 700])
                out.flush()

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        assert {name: b"".join(chunks) for name, _, chunks in Archive(pipe).files()} == FILES
    thread.join()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.DIRTYPE, "a folder"),
        (tarfile.GNUTYPE_SPARSE, "type b'S'"),
        (tarfile.GNUTYPE_LONGNAME, "type b'L'"),
        (tarfile.XHDTYPE, "type b'x'"),
        (tarfile.XGLTYPE, "type b'g'"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_is_no_plain_file_is_refused(kind: bytes, said: str, first: bool) -> None:
    """The first entry too: a pax header may claim gigabytes before anything is known of the archive."""
    bad = entry("graphs/a", kind=kind, linkname="/etc/passwd")
    with pytest.raises(BundleError, match="no plain file") as caught:
        _read(archive_of([bad] if first else [entry(LISTING, make_listing().to_bytes()), bad]))
    assert said in caught.value.got


def test_a_file_that_is_not_listed_is_refused_wherever_it_stands() -> None:
    listing = entry(LISTING, make_listing({"b": b"1"}).to_bytes())
    for extra in ("a", "c"):
        names = sorted([extra, "b"])
        with pytest.raises(BundleError, match="does not") as caught:
            _read(archive_of([listing, *(entry(name, b"1") for name in names)]))
        assert extra in caught.value.got


def test_a_file_that_is_there_twice_is_refused() -> None:
    listing = entry(LISTING, make_listing({"a": b"1"}).to_bytes())
    with pytest.raises(BundleError, match="does not list"):
        _read(archive_of([listing, entry("a", b"1"), entry("a", b"1")]))
    with pytest.raises(BundleError, match="does not"):
        _read(archive_of([listing, listing, entry("a", b"1")]))


def test_a_file_that_is_larger_than_listed_is_refused_before_it_is_read() -> None:
    """A bomb: the listing says one byte, the header 16 GiB."""
    header = entry("a", size=1 << 34)[:512]
    with pytest.raises(BundleError, match="does not hold what its") as caught:
        _read(entry(LISTING, make_listing({"a": b"1"}).to_bytes()) + header)
    assert str(1 << 34) in caught.value.got


def test_a_changed_byte_is_found() -> None:
    files = {**FILES, "graphs/weights/gen_step.fp16.data": b"\1" + FILES["graphs/weights/gen_step.fp16.data"][1:]}
    with pytest.raises(BundleError, match=r"gen_step\.fp16\.data differs") as caught:
        _read(make_archive(files, make_listing().to_bytes()))
    assert caught.value.got.startswith("sha256")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(make_archive()) - 1025))
def test_wherever_it_is_cut_off_it_is_refused(length: int) -> None:
    with pytest.raises(BundleError):
        _read(make_archive()[:length])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(make_archive()) - 1025), st.integers(1, 255))
def test_a_changed_byte_never_changes_what_comes_out(position: int, change: int) -> None:
    """Refused; or a byte of pack.json's words, which a signature is for; or what ends the number of a checksum."""
    data = bytearray(make_archive())
    data[position] ^= change
    try:
        archive = Archive(stream(bytes(data)))
        found = {name: b"".join(chunks) for name, _, chunks in archive.files()}
    except BundleError:
        return
    assert 512 <= position < 512 + len(make_listing().to_bytes()) or 148 <= position % 512 < 156
    assert set(found) == set(archive.listing.files)
    assert {name: packed(content).sha256 for name, content in found.items()} == {
        name: e.sha256 for name, e in archive.listing.files.items()
    }


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no tar file"),
        (b"hello" * 200, "no tar file"),
        (bytes(2000), "no tar file"),
        (archive_of([entry("a")]), "a"),
    ],
)
def test_a_stranger_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(BundleError, match="not an archive of motedge pack") as caught:
        Archive(stream(data))
    assert caught.value.got == said


def test_a_compressed_archive_says_how_to_go_on() -> None:
    with pytest.raises(BundleError, match="compressed") as caught:
        Archive(stream(gzip.compress(os.urandom(2000))))
    assert "gzip -dc FILE | motedge install -" in caught.value.fix


def test_a_listing_is_not_read_into_memory_whatever_its_size() -> None:
    """The header claims 1 TB; the stream would have to be asked for it."""

    class Asked(io.BytesIO):
        def read(self, size: int = -1, /) -> bytes:  # type: ignore[override]
            assert 0 <= size <= LISTING_BYTES_MAX
            return super().read(size)

    with pytest.raises(BundleError):
        Archive(Asked(entry(LISTING, size=10**12)[:512] + bytes(4096)))
    good = entry(LISTING, make_listing().to_bytes())
    with pytest.raises(BundleError, match="too long"):
        Archive(Asked(good + entry(SIGNATURE, size=10**12)[:512] + bytes(4096)))
