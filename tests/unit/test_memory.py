"""The machine's memory as the kernel tells it."""

from __future__ import annotations

from pathlib import Path

from motedge.memory import available_memory


def test_what_can_be_had(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    4 kB\n")
    assert available_memory(tmp_path / "meminfo") == 4096
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\n")
    assert available_memory(tmp_path / "meminfo") is None
    assert available_memory(tmp_path / "none") is None
