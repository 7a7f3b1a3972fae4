"""The journal: it goes on where it was cut, refuses what it is not of, and loses nothing to a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from motedge.bench.journal import FILE, Journal, check_journal, read_journal
from motedge.errors import DataError, HostError, UsageError

IDENTITY = {"bundles": ["aa"], "device": ["arm", None, 8], "options": {"repeat": 3}}


def opened(root: Path, identity: dict[str, Any] = IDENTITY, **how: Any) -> Journal:
    return Journal(root / "out", identity, **how)


def test_it_goes_on(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append("times", cell="a / b", ms=[1.5, 2.25])
    journal.close()
    again = opened(tmp_path)
    again.append("done")
    assert again.lines == [{"kind": "times", "cell": "a / b", "ms": [1.5, 2.25]}, {"kind": "done"}]
    assert again.of_kind("done") == [{"kind": "done"}]
    again.close()
    assert opened(tmp_path, restart=True).lines == []


@pytest.mark.parametrize("torn", [b"{", b'{"kind": "times", "ms": [1', b'{"kind": "done"}'])
def test_a_torn_end_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    journal = opened(tmp_path)
    journal.append("times", cell="a")
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + torn)
    again = opened(tmp_path)
    assert [line["kind"] for line in again.lines] == ["times"] and journal.path.read_bytes() == whole
    again.append("done")
    assert [line["kind"] for line in read_journal(tmp_path / "out")] == ["head", "times", "done"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bundles": ["bb"]}, "differs in bundles"),
        ({"device": ["x86", None, 8]}, "differs in device"),
        ({"options": {"repeat": 4}}, "differs in options"),
        ({"more": 1}, "differs in more"),
    ],
)
def test_another_bench_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    journal = opened(tmp_path)
    journal.append("times", cell="a")
    journal.close()
    before = journal.path.read_bytes()
    with pytest.raises(UsageError, match=said) as caught:
        opened(tmp_path, {**IDENTITY, **change})
    assert "--restart" in str(caught.value)
    assert journal.path.read_bytes() == before


def test_the_message_names_what_differs(tmp_path: Path) -> None:
    opened(tmp_path, {"options": {"repeat": 3, "seed": 0}}).close()
    with pytest.raises(UsageError) as caught:
        opened(tmp_path, {"options": {"repeat": 4, "seed": 0}})
    assert (caught.value.expected, caught.value.got) == ("options repeat: 3", "options repeat: 4")


@pytest.mark.parametrize("restart", [False, True])
def test_checked_without_a_trace(tmp_path: Path, restart: bool) -> None:
    """As a dry run does: what would be refused is, and nothing is made or changed."""
    check_journal(tmp_path / "out", IDENTITY, restart=restart)
    assert not (tmp_path / "out").exists()
    opened(tmp_path).close()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    check_journal(tmp_path / "out", IDENTITY, restart=restart)
    if restart:
        check_journal(tmp_path / "out", {"more": 1}, restart=True)
    else:
        with pytest.raises(UsageError, match="differs in bundles"):
            check_journal(tmp_path / "out", {"more": 1})
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't write"):
        check_journal(tmp_path / "file", IDENTITY, restart=restart)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for restart in (False, True):
        with pytest.raises(HostError, match="another bench is writing"):
            opened(tmp_path, restart=restart)
    journal.close()
    opened(tmp_path).close()


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense\n", b'{"kind": "head", "schema": "motedge.bench_journal/v9"}\n', b"[1]\n", b'{"a": 1}\n'],
)
def test_what_is_no_journal(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FILE).write_bytes(content)
    with pytest.raises(DataError):
        opened(tmp_path)
    opened(tmp_path, restart=True)


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for number in range(3):
        journal.append("times", cell=str(number))
    journal.close()
    lines = journal.path.read_bytes().split(b"\n")
    lines[2] = lines[2][:7]
    journal.path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match="damaged in line 3"):
        opened(tmp_path)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    journal.append("times", cell="a")
    before = journal.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match="the disk is full"):
        journal.append("times", cell="b")
    monkeypatch.undo()
    assert journal.path.read_bytes() == before and len(journal.lines) == 1
    journal.append("times", cell="b")
    assert [line["cell"] for line in journal.lines] == ["a", "b"]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError):
        opened(tmp_path)
