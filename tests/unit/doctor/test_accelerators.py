from __future__ import annotations

from pathlib import Path

import pytest

from motedge.doctor.accelerators import Gpu, gpus, jetson, parse_gpus


def test_parses_a_server_and_a_jetson() -> None:
    text = "NVIDIA H100 80GB HBM3, 570.124.06, 81559, 9.0\nOrin (nvgpu), 540.4.0, [N/A], [N/A]\n"
    assert parse_gpus(text) == [
        Gpu("NVIDIA H100 80GB HBM3", "570.124.06", 81559, "9.0"),
        Gpu("Orin (nvgpu)", "540.4.0", None, None),
    ]


def test_l4t_release(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\x00")
    found = jetson(tmp_path)
    assert found is not None
    assert found.l4t == "36.4.3"
    assert found.model == "NVIDIA Jetson AGX Orin Developer Kit"


def test_jetson_without_release_file(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson Orin NX\x00")
    found = jetson(tmp_path)
    assert found is not None
    assert found.l4t is None


def test_other_boards_are_no_jetson(tmp_path: Path) -> None:
    assert jetson(tmp_path) is None
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"Raspberry Pi 5\x00")
    assert jetson(tmp_path) is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo boom >&2; exit 9", "nvidia-smi failed: boom"), ("exit 9", "nvidia-smi failed: exit code 9")],
)
def test_nvidia_smi_that_fails(script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpus() == ([], reason)


def test_no_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == ([], "nvidia-smi is not installed")
