"""What a session says of the machine, and what is held against it."""

from __future__ import annotations

import platform
from pathlib import Path

from motedge.runtime.recorder.session import differences, processor_words


def test_processors_by_name_or_part(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9654\n\nprocessor\t: 1\nmodel name\t: AMD EPYC 9654\n")
    assert processor_words(cpuinfo).startswith(f"{platform.machine()}, AMD EPYC 9654, ")
    cpuinfo.write_text("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd83\n")
    assert ", 0xd83, " in processor_words(cpuinfo)
    assert processor_words(tmp_path / "none").endswith(" cores")


def test_differences_name_both() -> None:
    recorded = {"engine": "onnxruntime", "threads": 1, "numpy": "2.0", "machine": "a", "bundle": "x"}
    assert differences(recorded, dict(recorded, bundle="y")) == []
    assert differences(recorded, dict(recorded, machine="b")) == ["machine: a when recorded, b now"]
