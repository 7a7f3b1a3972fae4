"""The ring's files: bounded, torn anywhere, damaged anywhere, written by one process, through a full disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import DataError, HostError, UsageError
from motedge.runtime.recorder.ring_reader import RingReader
from motedge.runtime.recorder.ring_writer import LEAST_BYTES, RingWriter
from motedge.runtime.recorder.segment import MAGIC, OVERHEAD_BYTES, segments

_RING = 1 << 20


def _write(folder: Path, payloads: list[bytes], **options: Any) -> None:
    ring = RingWriter(folder, options.pop("max_bytes", _RING), **options)
    for payload in payloads:
        ring.append(payload)
    ring.close()


def _read(folder: Path) -> tuple[list[bytes], RingReader]:
    reader = RingReader(folder)
    return [record.payload for record in reader], reader


def _taken(folder: Path) -> int:
    return sum(path.stat().st_size for _, path in segments(folder))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    payloads = [b"", b"a", os.urandom(70_000), b"end"]
    _write(tmp_path, payloads)
    found, reader = _read(tmp_path)
    assert found == payloads and reader.damage == [] and reader.lost == 0


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=60))
@settings(max_examples=25, deadline=None)
def test_it_never_takes_more_and_keeps_the_newest(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    folder = tmp_path_factory.mktemp("ring")
    ring = RingWriter(folder, 100_000)
    for number, size in enumerate(sizes):
        ring.append(number.to_bytes(4, "little") + bytes(size))
        assert _taken(folder) <= 100_000
    ring.close()
    found, reader = _read(folder)
    numbers = [int.from_bytes(payload[:4], "little") for payload in found]
    assert numbers == list(range(numbers[0], len(sizes))), "the newest, without a gap"
    assert reader.lost == 0 and reader.damage == []


def test_each_segment_begins_with_its_head(tmp_path: Path) -> None:
    _write(tmp_path, [bytes(6000)] * 30, max_bytes=100_000, head=lambda: b"head")
    found, _ = _read(tmp_path)
    assert found[0] == b"head" and found.count(b"head") == len(segments(tmp_path)) > 3


def test_another_run_goes_on_in_a_segment_of_its_own(tmp_path: Path) -> None:
    _write(tmp_path, [b"first"])
    _write(tmp_path, [b"second"])
    found, reader = _read(tmp_path)
    assert found == [b"first", b"second"] and len(segments(tmp_path)) == 2 and reader.lost == 0
    assert [record.sequence for record in reader] == [0, 1]


def test_a_tail_torn_at_any_byte_is_recognised(tmp_path: Path) -> None:
    _write(tmp_path, [b"one", b"two two", b"three"])
    path = segments(tmp_path)[0][1]
    whole = path.read_bytes()
    ends, at = {len(MAGIC): 0}, len(MAGIC)
    for number, payload in enumerate((b"one", b"two two", b"three"), 1):
        at += OVERHEAD_BYTES + len(payload)
        ends[at] = number
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        found, reader = _read(tmp_path)
        expected = max((number for end, number in ends.items() if end <= cut), default=0)
        assert found == [b"one", b"two two", b"three"][:expected]
        if cut in ends:
            assert reader.damage == []
        else:
            assert [(d.kind, d.segment) for d in reader.damage] == [("torn", path.name)]


def test_after_a_torn_tail_the_next_run_records_on(tmp_path: Path) -> None:
    _write(tmp_path, [b"one", b"two"])
    path = segments(tmp_path)[0][1]
    path.write_bytes(path.read_bytes()[:-1])
    _write(tmp_path, [b"three"])
    found, reader = _read(tmp_path)
    assert found == [b"one", b"three"] and len(reader.damage) == 1


@given(st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_flipped_byte_never_gives_a_wrong_record(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("ring")
    payloads = [b"one" * 20, b"two" * 20, b"three" * 20]
    _write(folder, payloads)
    path = segments(folder)[0][1]
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] ^= flip
    path.write_bytes(raw)
    found, reader = _read(folder)
    assert found == payloads[: len(found)] and len(found) < 3
    assert len(reader.damage) == 1


def test_a_segment_that_was_removed_shows_as_lost(tmp_path: Path) -> None:
    _write(tmp_path, [bytes(6000)] * 12, max_bytes=100_000)
    there = segments(tmp_path)
    there[len(there) // 2][1].unlink()
    found, reader = _read(tmp_path)
    assert len(found) + reader.lost == 12 and reader.lost > 0


def test_one_process_writes(tmp_path: Path) -> None:
    ring = RingWriter(tmp_path, _RING)
    with pytest.raises(HostError, match="another process records"):
        RingWriter(tmp_path, _RING)
    ring.close()
    ring.close()
    RingWriter(tmp_path, _RING).close()


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too small"):
        RingWriter(tmp_path, LEAST_BYTES - 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't hold a ring"):
        RingWriter(tmp_path / "file", _RING)
    with pytest.raises(UsageError, match="can't hold a ring"):
        RingWriter(tmp_path / "file" / "below", _RING)
    with pytest.raises(DataError, match="no recording"):
        RingReader(tmp_path)
    with pytest.raises(DataError, match="no recording"):
        RingReader(tmp_path / "none")
    ring = RingWriter(tmp_path / "ring", LEAST_BYTES)
    ring.append(b"kept")
    with pytest.raises(UsageError, match="too large"):
        ring.append(bytes(LEAST_BYTES))
    ring.append(b"kept too")
    ring.close()
    assert _read(tmp_path / "ring")[0] == [b"kept", b"kept too"]


def test_a_full_disk_keeps_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = RingWriter(tmp_path, _RING)
    ring.append(b"kept")

    class Full:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def write(self, data: Any) -> int:
            if len(data) > 4:
                self.stream.write(data[:4])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    monkeypatch.setattr(ring, "_stream", Full(ring._stream))
    with pytest.raises(HostError, match="disk is full"):
        ring.append(b"not there")
    ring.append(b"there again")
    ring.close()
    found, reader = _read(tmp_path)
    assert found == [b"kept", b"there again"] and reader.damage == []


def test_a_killed_writer_leaves_all_that_it_wrote(tmp_path: Path) -> None:
    script = (
        "import sys; from motedge.runtime.recorder.ring_writer import RingWriter\n"
        f"ring = RingWriter({str(tmp_path)!r}, {_RING})\n"
        "for number in range(10 ** 9):\n"
        "    ring.append(number.to_bytes(4, 'little') + bytes(500))\n"
        "    print(number, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().split()]
    process.wait()
    found, reader = _read(tmp_path)
    numbers = [int.from_bytes(payload[:4], "little") for payload in found]
    assert numbers == list(range(numbers[0], len(numbers) + numbers[0])) and numbers[-1] >= said[-1] >= 49
    assert all(damage.kind == "torn" for damage in reader.damage)
    # The lock went with the process
    RingWriter(tmp_path, _RING).close()


def test_what_cameras_saw_is_for_one_user(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = tmp_path / "deep" / "ring"
        _write(folder, [os.urandom(60_000)] * 5)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    files = list(folder.iterdir())
    assert len(files) > 2 and {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    _write(tmp_path, [b"one"])
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


@pytest.mark.parametrize("durable", [True, False])
def test_durable_is_a_segments_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    synced, real = [], os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    _write(tmp_path, [os.urandom(100_000)] * 3, durable=durable)
    assert synced.count(str(tmp_path)) == (len(segments(tmp_path)) if durable else 0)
