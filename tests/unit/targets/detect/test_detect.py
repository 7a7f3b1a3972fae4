"""Which device a machine is, from a made file system and made tools."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from motedge.targets import detect as package
from motedge.targets.detect import clues as clues_module
from motedge.targets.detect import detect

MIB = 1024
Machine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes a root folder and tools; PATH holds nothing else but what scripts need."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))

    def make(
        *,
        compatible: str = "",
        model: str = "",
        memory_mib: int = 0,
        release: str = "",
        files: dict[str, str] | None = None,
        **scripts: str,
    ) -> Path:
        root = tmp_path / "root"
        content = {
            "proc/device-tree/compatible": compatible,
            "proc/device-tree/model": f"{model}\0" if model else "",
            "proc/meminfo": f"MemTotal: {memory_mib * MIB} kB\nMemAvailable: 1024 kB\n" if memory_mib else "",
            "etc/nv_tegra_release": release,
            **(files or {}),
        }
        for name, text in content.items():
            if text:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
        for name, script in scripts.items():
            tool = tools / name.replace("_", "-")
            tool.write_text(f"#!/bin/sh\n{script}\n")
            tool.chmod(0o755)
        return root

    return make


def _orin_nano(machine: Machine, **more: object) -> Path:
    return machine(
        **{
            "compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234",
            "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            "memory_mib": 7620,
            "release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
            "nvpmodel": "echo 'NV Power Mode: 15W'; echo 0",
            **more,
        }
    )


def test_a_jetson_by_its_module(machine: Machine) -> None:
    found = detect(_orin_nano(machine))
    assert (found.target, found.certainty, found.notes) == ("jetson-orin-nano-8gb", "certain", ())
    assert found.software is not None and found.software.release == "JetPack 6.2"
    assert found.power_mode is not None and found.power_mode.compute_scale is not None
    assert found.power_mode.compute_scale.value == 0.6
    assert found.clues.memory_bytes == 7620 * 2**20


def test_the_part_number_is_believed_more_than_the_boards_name(machine: Machine) -> None:
    root = _orin_nano(machine, compatible="nvidia,p3768-0000+p3767-0000-super\0nvidia,tegra234", memory_mib=15656)
    assert detect(root).target == "jetson-orin-nx-16gb"


@pytest.mark.parametrize(
    ("model", "memory_mib", "target"),
    [
        ("NVIDIA Jetson AGX Orin Developer Kit", 62841, "jetson-agx-orin-64gb"),
        ("NVIDIA Jetson AGX Orin Developer Kit", 30697, "jetson-agx-orin-32gb"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 15656, "jetson-orin-nx-16gb"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 7620, "jetson-orin-nx-8gb"),
        ("NVIDIA Jetson Orin Nano Developer Kit", 3524, "jetson-orin-nano-4gb"),
        ("NVIDIA Jetson AGX Thor Developer Kit", 125772, "jetson-agx-thor-t5000"),
        ("NVIDIA Jetson Thor something", 62800, "jetson-t4000"),
    ],
)
def test_without_a_part_number_memory_tells_modules_apart(
    machine: Machine, model: str, memory_mib: int, target: str
) -> None:
    found = detect(machine(model=model, memory_mib=memory_mib))
    assert (found.target, found.certainty) == (target, "likely")


def test_what_memory_can_not_tell_apart_is_listed(machine: Machine) -> None:
    found = detect(machine(model="NVIDIA Jetson Orin Nano Developer Kit", memory_mib=7620))
    assert (found.target, found.certainty) == (None, "ambiguous")
    assert {c.target for c in found.candidates} == {"jetson-orin-nano-8gb", "jetson-orin-nx-8gb"}


def test_memory_that_fits_no_module(machine: Machine) -> None:
    found = detect(machine(model="NVIDIA Jetson AGX Orin Developer Kit", memory_mib=5000))
    assert (found.target, found.certainty, found.candidates) == (None, "unknown", ())
    assert "5.2 GB" in found.reason


def test_a_module_with_too_little_memory_is_noted(machine: Machine) -> None:
    found = detect(_orin_nano(machine, memory_mib=4000))
    assert found.target == "jetson-orin-nano-8gb"
    assert "which does not fit the 8.6 GB" in found.notes[0]


def test_an_older_jetson(machine: Machine) -> None:
    found = detect(machine(model="NVIDIA Jetson Xavier NX Developer Kit", memory_mib=7764))
    assert (found.target, found.certainty) == (None, "unknown")
    assert "Xavier" in found.reason


@pytest.mark.parametrize(
    ("release", "row", "note"),
    [
        ("R36 (release), REVISION: 4.7,", "JetPack 6.2.1", "36.4.7 is newer than 36.4.4"),
        ("R39 (release), REVISION: 2.0,", "JetPack 7.2", None),
        ("R39 (release), REVISION: 2.1,", "JetPack 7.2.1", None),
        ("R35 (release), REVISION: 4.1,", None, "35.4.1 is in no row"),
        ("R36 (release), REVISION: 5.0,", "JetPack 6.2.2", None),
        ("R36 (release), REVISION: 6.0,", None, "36.6.0 is in no row"),
        ("no release here", None, None),
    ],
)
def test_jetson_linux_to_jetpack(machine: Machine, release: str, row: str | None, note: str | None) -> None:
    found = detect(_orin_nano(machine, release=f"# {release}"))
    assert (found.software.release if found.software else None) == row
    assert (note is None) == (found.notes == ())
    assert note is None or note in found.notes[0]


def test_another_tensorrt_than_the_releases(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _orin_nano(machine)
    monkeypatch.setattr(clues_module, "engine_libraries", lambda: {"tensorrt": "10.7.0"})
    assert "this Python has TensorRT 10.7.0; JetPack 6.2 comes with 10.3.0.30" in detect(root).notes
    monkeypatch.setattr(clues_module, "engine_libraries", lambda: {"tensorrt": "10.3.0"})
    assert detect(root).notes == ()


@pytest.mark.parametrize(
    ("csv", "target", "certainty"),
    [
        ("NVIDIA H200, 580.1, 143771, 9.0", "h200", "certain"),
        ("NVIDIA GeForce RTX 4090, 580.1, 24564, 8.9", "rtx-4090", "certain"),
        ("NVIDIA GB10, 580.1, [N/A], 12.1", "dgx-spark", "certain"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU, 580.1, 16376, 8.9", None, "unknown"),
        ("NVIDIA H100 PCIe, 580.1, 81559, 9.0", None, "unknown"),
        ("Tesla T4, 580.1, 15360, 7.5", None, "unknown"),
    ],
)
def test_cards(machine: Machine, csv: str, target: str | None, certainty: str) -> None:
    found = detect(machine(memory_mib=64000, nvidia_smi=f"echo '{csv}'"))
    assert (found.target, found.certainty) == (target, certainty)
    assert found.power_mode is None and found.software is None


def test_an_unknown_card_names_those_of_its_capability(machine: Machine) -> None:
    found = detect(machine(nvidia_smi="echo 'NVIDIA GeForce RTX 4070, 580.1, 12282, 8.9'"))
    assert [c.target for c in found.candidates] == ["rtx-4090", "cpu"]
    assert "RTX 4070 is not in the catalogue" in found.reason


def test_several_cards(machine: Machine) -> None:
    line = "NVIDIA H100 80GB HBM3, 580.1, 81559, 9.0"
    found = detect(machine(nvidia_smi=f"echo '{line}'; echo '{line}'"))
    assert found.target == "h100"
    assert found.notes[0].startswith("2 GPUs")


def test_no_gpu(machine: Machine) -> None:
    found = detect(machine(memory_mib=24000))
    assert (found.target, found.certainty, found.clues.problems) == ("cpu", "certain", ())


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            "echo 'NVIDIA-SMI has failed because it could not talk to the driver'; exit 9",
            "could not talk to the driver",
        ),
        ("printf '\\377\\376\\n'", "what can't be read"),
    ],
)
def test_a_broken_nvidia_smi_is_reported(machine: Machine, script: str, problem: str) -> None:
    found = detect(machine(memory_mib=24000, nvidia_smi=script))
    assert (found.target, found.certainty) == ("cpu", "likely")
    assert problem in found.clues.problems[0]


@pytest.mark.parametrize("script", ["echo ','", "echo 'a,b,c,d,e,f,g'", "echo ''"])
def test_nonsense_of_nvidia_smi(machine: Machine, script: str) -> None:
    assert detect(machine(memory_mib=24000, nvidia_smi=script)).target in (None, "cpu")


def test_a_hanging_nvpmodel(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own child keeps the pipe open, as a hanging driver's helper does."""
    monkeypatch.setattr(clues_module, "_TIMEOUT_S", 0.3)
    started = time.monotonic()
    found = detect(_orin_nano(machine, nvpmodel="/bin/sleep 30"))
    assert time.monotonic() - started < 10
    assert found.target == "jetson-orin-nano-8gb" and found.power_mode is None
    assert "did not answer within 0.3 s" in found.clues.problems[0]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'NVPM ERROR: permission denied' >&2; exit 1", "NVPM ERROR: permission denied"),
        ("printf '\\377\\376'", "named no power mode"),
    ],
)
def test_where_nvpmodel_fails_its_files_are_read(machine: Machine, script: str, problem: str) -> None:
    files = {
        "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    }
    found = detect(_orin_nano(machine, nvpmodel=script, files=files))
    assert found.clues.power_mode == "MAXN_SUPER"
    assert found.power_mode is not None and found.power_mode.name == "MAXN_SUPER"
    assert problem in found.clues.problems[0]


def test_an_unknown_power_mode_is_noted(machine: Machine) -> None:
    found = detect(_orin_nano(machine, nvpmodel="echo 'NV Power Mode: 10W_DESKTOP'"))
    assert found.power_mode is None
    assert found.notes == ("power mode 10W_DESKTOP is not in the catalogue: figures are for the highest mode",)


def test_modes_with_and_without_their_prefix(machine: Machine) -> None:
    root = machine(
        compatible="nvidia,p3737-0000+p3701-0005\0nvidia,tegra234",
        memory_mib=62841,
        nvpmodel="echo 'NV Power Mode: 30W'",
    )
    found = detect(root)
    assert found.power_mode is not None and found.power_mode.name == "MODE_30W"


def test_every_certainty_is_exported() -> None:
    assert {package.CERTAIN, package.LIKELY, package.AMBIGUOUS, package.UNKNOWN} == {
        "certain",
        "likely",
        "ambiguous",
        "unknown",
    }
