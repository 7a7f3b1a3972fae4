"""tegrastats: lines of real boards as public documents and reports show them, and programs that misbehave."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from motedge.profile.sensors.sensor import SensorAbsentError
from motedge.profile.sensors.tegrastats import Tegrastats, parse_tegrastats

# AGX Orin, JetPack 5
AGX_ORIN = (
    "11-21-2025 08:49:48 RAM 13983/62780MB (lfb 424x4MB) SWAP 126/31390MB (cached 0MB) CPU [90%@2201,"
    "100%@2201,100%@2201,100%@2201,100%@2201,100%@2201,100%@2201,100%@2201,100%@2201,"
    "100%@2201,100%@2201,100%@2201] EMC_FREQ 1%@2133 GR3D_FREQ 14%@[407,407] VIC_FREQ 115 "
    "NVDLA0_FREQ @1600 APE 174 CV0@73.625C CPU@77.281C Tboard@62C SOC2@70C Tdiode@62.25C SOC0@69.531C "
    "CV1@72.5C GPU@69.125C tj@77.281C SOC1@68.968C CV2@67.25C VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV "
    "14312mW/12415mW VIN_SYS_5V0 4968mW/5048mW VDDQ_VDD2_1V8AO 1091mW/1091mW"
)
# Orin Nano, JetPack 6.2
ORIN_NANO = (
    "09-24-2026 10:15:32 RAM 2467/7471MB (lfb 2x4MB) SWAP 0/994MB (cached 0MB) CPU "
    "[2%@729,1%@729,0%@729,off,off,0%@731] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[305] NVDEC off NVJPG off "
    "NVJPG1 off VIC off OFA off APE 200 cpu@47.5C soc2@46.8C soc0@46.4C gpu@46.2C tj@47.5C soc1@46.6C "
    "VDD_IN 4462mW/4462mW VDD_CPU_GPU_CV 480mW/480mW VDD_SOC 1400mW/1400mW"
)
# Nano, JetPack 4.6: rails without a unit
NANO = (
    "RAM 1234/1979MB (lfb 4x4MB) SWAP 0/989MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU "
    "[12%@1479,17%@1479,16%@1479,11%@1479] EMC_FREQ 0%@1600 GR3D_FREQ 0%@921 PLL@29C CPU@29.5C PMIC@100C "
    "GPU@28C AO@33.5C thermal@29C POM_5V_IN 1812/1812 POM_5V_GPU 0/0 POM_5V_CPU 401/401"
)
# TX2
TX2 = (
    "RAM 1710/7854MB (lfb 84x4MB) CPU [0%@499,off,off,0%@499,0%@499,0%@498] EMC_FREQ 0%@665 GR3D_FREQ "
    "0%@140 APE 150 BCPU@32C MCPU@32C GPU@32C PLL@32C Tboard@29C Tdiode@29.25C PMIC@100C thermal@32C "
    "VDD_IN 1183/1183 VDD_CPU 152/152 VDD_GPU 152/152 VDD_SOC 381/381 VDD_WIFI 0/0 VDD_DDR 192/192"
)


def _values(line: str, kind: str) -> dict[str, float]:
    return {channel.name: value for channel, value in parse_tegrastats(line).items() if channel.kind == kind}


def test_agx_orin() -> None:
    assert _values(AGX_ORIN, "power_w") == {
        "VDD_GPU_SOC": 3.15,
        "VDD_CPU_CV": 14.312,
        "VIN_SYS_5V0": 4.968,
        "VDDQ_VDD2_1V8AO": 1.091,
    }
    assert _values(AGX_ORIN, "clock_mhz") == {"CPU": 2201, "GPU": 407, "memory controller": 2133}
    assert _values(AGX_ORIN, "load_percent")["CPU"] == pytest.approx((90 + 11 * 100) / 12)
    temperatures = _values(AGX_ORIN, "temperature_c")
    assert temperatures["tj"] == 77.281 and temperatures["Tboard"] == 62 and len(temperatures) == 11
    assert _values(AGX_ORIN, "memory_bytes") == {"RAM": 13983 * 2**20}


def test_orin_nano_with_cores_that_are_off() -> None:
    assert _values(ORIN_NANO, "power_w") == {"VDD_IN": 4.462, "VDD_CPU_GPU_CV": 0.48, "VDD_SOC": 1.4}
    assert _values(ORIN_NANO, "clock_mhz")["CPU"] == pytest.approx((3 * 729 + 731) / 4)
    assert _values(ORIN_NANO, "clock_mhz")["GPU"] == 305


def test_older_boards() -> None:
    assert _values(NANO, "power_w") == {"POM_5V_IN": 1.812, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.401}
    assert _values(NANO, "clock_mhz")["GPU"] == 921
    assert _values(TX2, "power_w")["VDD_IN"] == 1.183 and _values(TX2, "power_w")["VDD_DDR"] == 0.192


@pytest.mark.parametrize(
    "line",
    ["", "RAM", "CPU [off,off]", "GR3D_FREQ unavailable", "cv0@-256C", "VDD_IN mW/mW", "\x00\xff garbage 1/2"],
)
def test_lines_without_values(line: str) -> None:
    assert parse_tegrastats(line) == {}


def _program(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_program_is_followed_and_ended(tmp_path: Path) -> None:
    command = _program(tmp_path / "tegrastats", f"while true; do echo '{ORIN_NANO}'; sleep 0.02; done")
    sensor = Tegrastats(20, command)
    sensor.open()
    assert sensor.facts() == {}
    assert len(sensor.read()) > 8
    program = sensor._program
    sensor.close()
    sensor.close()
    assert program is not None and program._process is None


def test_a_board_that_hides_its_rails_says_so(tmp_path: Path) -> None:
    command = _program(tmp_path / "tegrastats", "while true; do echo 'RAM 1/2MB CPU [1%@1]'; sleep 0.02; done")
    sensor = Tegrastats(20, command)
    sensor.open()
    assert "root" in sensor.facts()["power"]
    sensor.close()


@pytest.mark.parametrize(
    ("body", "said"), [("exit 1", "ended without a line"), ("echo hello; sleep 9", "nothing that is known")]
)
def test_programs_that_say_nothing(tmp_path: Path, body: str, said: str) -> None:
    sensor = Tegrastats(20, _program(tmp_path / "tegrastats", body))
    with pytest.raises(SensorAbsentError, match=said):
        sensor.open()


def test_absent_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SensorAbsentError, match="not installed"):
        Tegrastats().open()
    with pytest.raises(SensorAbsentError, match="can't be started"):
        Tegrastats(20, str(tmp_path / "nothing")).open()
    monkeypatch.undo()
    sensor = Tegrastats(20, _program(tmp_path / "tegrastats", f"echo '{NANO}'; sleep 0.2"))
    sensor.open()
    time.sleep(0.5)
    with pytest.raises(SensorAbsentError, match="has ended"):
        sensor.read()
    sensor.close()
