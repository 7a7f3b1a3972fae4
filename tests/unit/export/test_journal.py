"""The record of finished files: what is made, what is kept, what goes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from motedge.bundle import Bundle, FileEntry, Manifest
from motedge.errors import BundleError
from motedge.export.journal import JOURNAL, Journal, source_hash
from motedge.files import sha256_file


def writer(content: bytes):
    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return write


def manifest(journal: Journal) -> Manifest:
    return Manifest(model={}, shape_set={}, policy={}, graphs={}, files=journal.bundle_files())


def finished(root: Path, names: tuple[str, ...] = ("tables/a", "tables/b"), origin: str = "origin") -> None:
    journal = Journal(root, origin)
    for name in names:
        journal.make(name, "table", [name], writer(name.encode()))
    journal.finish(manifest(journal))


def test_a_source_hash_covers_every_part() -> None:
    hashes = {source_hash(*parts) for parts in [("a", "b"), ("b", "a"), ("ab",), ("a", ["b"]), ("a", 1), ("a", "1")]}
    assert len(hashes) == 6 and source_hash({"x": 1, "y": 2}) == source_hash({"y": 2, "x": 1})


def test_a_file_is_made_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "origin")
    assert journal.missing("tables/a", [1])
    assert journal.make("tables/a", "table", [1], writer(b"one"))
    assert not journal.missing("tables/a", [1])
    assert not journal.make("tables/a", "table", [1], writer(b"never"))
    entry = journal.files["tables/a"]
    assert (entry.sha256, entry.bytes, entry.role) == (sha256_file(tmp_path / "tables/a"), 3, "table")
    assert journal.written == ["tables/a"]


@pytest.mark.parametrize("change", ["parts", "origin", "gone", "size"])
def test_a_file_is_made_again_when_its_source_or_itself_changed(change: str, tmp_path: Path) -> None:
    Journal(tmp_path, "origin").make("tables/a", "table", [1], writer(b"one"))
    if change == "gone":
        (tmp_path / "tables/a").unlink()
    if change == "size":
        (tmp_path / "tables/a").write_bytes(b"on")
    journal = Journal(tmp_path, "other" if change == "origin" else "origin")
    assert journal.make("tables/a", "table", [2 if change == "parts" else 1], writer(b"two"))
    assert (tmp_path / "tables/a").read_bytes() == b"two"


def test_a_hash_that_the_writer_knows_is_taken(tmp_path: Path) -> None:
    def write(path: Path) -> tuple[str, int]:
        writer(b"12345")(path)
        return "digest", 5

    journal = Journal(tmp_path, "origin")
    journal.make("tables/a", "table", [], write)
    assert journal.files["tables/a"] == FileEntry("digest", 5, "table", source_hash("origin", "tables/a", []))


def test_a_writer_that_fails_leaves_no_entry(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "origin")

    def fail(path: Path) -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        journal.make("tables/a", "table", [], fail)
    assert journal.files == {} and not (tmp_path / JOURNAL).exists()


def test_the_manifest_replaces_the_record(tmp_path: Path) -> None:
    finished(tmp_path)
    assert not (tmp_path / JOURNAL).exists()
    assert sorted(Bundle.open(tmp_path).manifest.files) == ["tables/a", "tables/b"]
    stamp = (tmp_path / "manifest.json").stat().st_mtime_ns
    finished(tmp_path)
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == stamp


def test_files_of_the_last_manifest_stay_in_the_bundle(tmp_path: Path) -> None:
    finished(tmp_path)
    finished(tmp_path, ("tables/c",))
    assert sorted(Bundle.open(tmp_path).manifest.files) == ["tables/a", "tables/b", "tables/c"]


def test_files_of_an_interrupted_export_that_are_not_asked_for_go(tmp_path: Path) -> None:
    stopped = Journal(tmp_path, "origin")
    for name in ("tables/a", "graphs/weights/x"):
        stopped.make(name, "table", [name], writer(b"content"))
    (tmp_path / "graphs/weights/y.partial").write_bytes(b"half")
    (tmp_path / "notes.partial").write_bytes(b"of someone else")
    finished(tmp_path, ("tables/a",))
    assert sorted(Bundle.open(tmp_path).manifest.files) == ["tables/a"]
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["a", "manifest.json", "notes.partial"]


def test_another_checkpoints_interrupted_export_is_not_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = Journal(tmp_path, "other")
    for name in ("tables/a", "tables/old"):
        stopped.make(name, "table", [name], writer(b"other content"))
    finished(tmp_path, ("tables/a",))
    assert "another checkpoint" in caplog.text
    assert (tmp_path / "tables/a").read_bytes() == b"tables/a" and not (tmp_path / "tables/old").exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "tables/../../outside"])
def test_a_record_that_names_files_outside_is_not_believed(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "bundle"
    root.mkdir()
    (tmp_path / "outside").write_text("mine")
    entry = {"sha256": "", "bytes": 4, "role": "table", "source": ""}
    (root / JOURNAL).write_text(json.dumps({"origin": "origin", "files": {name: entry}}))
    finished(root)
    assert "damaged" in caplog.text and (tmp_path / "outside").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "{", "3", "[]", "{}", '{"files": 1}', '{"files": {"a": 1}}', '{"files": []}'])
def test_a_damaged_record_starts_over(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / JOURNAL).write_text(text)
    assert Journal(tmp_path, "origin").files == {}
    assert "damaged" in caplog.text


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BundleError, match="is a file"):
        Journal(tmp_path / "out", "origin")


def test_two_threads_lose_no_entry(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "origin")
    names = [f"tables/{i}" for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: journal.make(name, "table", [], writer(name.encode())), names))
    assert sorted(Journal(tmp_path, "origin").files) == sorted(names) == sorted(journal.written)
