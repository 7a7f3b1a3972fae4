"""Giving back pages of mapped weight files: which mappings are found, and that no value changes."""

from __future__ import annotations

import mmap
import sys
import time
from pathlib import Path

import pytest

from motedge.targets.builders.mapped_weights import MappedWeights, find_mappings, release

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
_MIB = 1 << 20


def _resident_file_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile:"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "graphs/weights/gen_step.bf16.data"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(range(256)) * (32 * _MIB // 256))
    return path


def test_pages_go_and_values_stay(weights: Path) -> None:
    with open(weights, "rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        found = find_mappings(weights.parents[1])
        assert [end - start for start, end in found] == [32 * _MIB]
        before = _resident_file_bytes()
        assert sum(mapped[::4096]) >= 0
        assert _resident_file_bytes() - before > 24 * _MIB
        release(found)
        assert _resident_file_bytes() - before < 4 * _MIB
        assert mapped[:] == weights.read_bytes()


def test_works_in_the_background(weights: Path) -> None:
    with open(weights, "rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        with MappedWeights(weights.parents[1]) as kept:
            assert kept.bytes == 32 * _MIB
            before = _resident_file_bytes()
            assert sum(mapped[::4096]) >= 0
            deadline = time.monotonic() + 5
            while _resident_file_bytes() - before > 4 * _MIB and time.monotonic() < deadline:
                time.sleep(0.02)
            assert _resident_file_bytes() - before < 4 * _MIB
        assert mapped[5000:5004] == bytes([136, 137, 138, 139])


def test_only_read_only_mappings_of_files_below_the_folder(tmp_path: Path) -> None:
    """A writable private mapping may hold changes that exist nowhere else: dropping its pages would lose them."""
    maps = tmp_path / "maps"
    folder = tmp_path.resolve()
    maps.write_text(
        f"10000000-10400000 r--p 00000000 fe:00 1   {folder}/weights/a.data\n"
        f"20000000-20400000 rw-p 00000000 fe:00 2   {folder}/weights/b.data\n"
        f"30000000-30400000 r--p 00000000 fe:00 3   {folder}-other/c.data\n"
        f"40000000-40001000 r--p 00000000 fe:00 4   {folder}/small.data\n"
        "50000000-50400000 r--p 00000000 00:00 0 \n"
    )
    assert find_mappings(tmp_path, maps) == [(0x10000000, 0x10400000)]


def test_nothing_mapped_starts_no_thread(tmp_path: Path) -> None:
    with MappedWeights(tmp_path) as none:
        assert none.bytes == 0
