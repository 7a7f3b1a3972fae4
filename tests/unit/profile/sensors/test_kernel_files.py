"""Sensors that are files of the kernel, on made-up file systems of a Jetson and of a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from motedge.profile.sensors.linux import LinuxFiles
from motedge.profile.sensors.rapl import Rapl
from motedge.profile.sensors.sensor import Channel, SensorAbsentError


def _files(root: Path, **files: object) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    ina, disk = "sys/class/hwmon/hwmon3", "sys/class/hwmon/hwmon1"
    _files(
        tmp_path,
        **{
            f"{ina}/name": "ina3221",
            f"{ina}/in1_label": "VDD_IN",
            f"{ina}/in1_input": 5000,
            f"{ina}/curr1_input": 900,
            f"{ina}/in4_label": "sum of shunt voltages",
            f"{ina}/in4_input": 1,
            f"{disk}/name": "nvme",
            f"{disk}/power1_input": 8_000_000,
            "sys/class/hwmon/hwmon4/name": "ina238",
            "sys/class/hwmon/hwmon4/power1_input": 21_500_000,
            "sys/class/hwmon/hwmon5/oc1_event_cnt": 2,
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": 48_500,
            "sys/class/devfreq/17000000.gpu/cur_freq": 1_300_500_000,
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": 2_201_600,
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": 729_600,
            "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil",
            "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": 729_600,
            "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": 2_201_600,
        },
    )
    return tmp_path


def test_jetson_files(jetson: Path) -> None:
    sensor = LinuxFiles(jetson)
    sensor.open()
    assert sensor.read() == pytest.approx(
        {
            Channel("Linux", "VDD_IN", "power_w"): 4.5,
            Channel("Linux", "ina238 power1", "power_w"): 21.5,
            Channel("Linux", "cpu", "temperature_c"): 48.5,
            Channel("Linux", "GPU 17000000.gpu", "clock_mhz"): 1300.5,
            Channel("Linux", "CPU", "clock_mhz"): (2201.6 + 729.6) / 2,
            Channel("Linux", "heat and over-current events", "throttle_count"): 2.0,
        }
    )
    assert sensor.facts() == {"CPU governor": "schedutil", "CPU clock limits": "730 to 2202 MHz"}


def test_a_file_that_goes_away_is_left_out(jetson: Path) -> None:
    sensor = LinuxFiles(jetson)
    sensor.open()
    (jetson / "sys/class/thermal/thermal_zone0/temp").write_text("invalid")
    (jetson / "sys/class/hwmon/hwmon3/curr1_input").unlink()
    kinds = {channel.kind for channel in sensor.read()}
    assert "temperature_c" not in kinds and "clock_mhz" in kinds


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(SensorAbsentError, match="no clocks"):
        LinuxFiles(tmp_path).open()
    with pytest.raises(SensorAbsentError, match="no RAPL"):
        Rapl(tmp_path).open()


def test_rapl_counts_on_when_a_counter_starts_anew(tmp_path: Path) -> None:
    top = "sys/class/powercap/intel-rapl:0"
    _files(
        tmp_path,
        **{
            f"{top}/name": "package-0",
            f"{top}/energy_uj": 9_000_000,
            f"{top}/max_energy_range_uj": 10_000_000,
            "sys/class/powercap/intel-rapl:0:0/name": "dram",
            "sys/class/powercap/intel-rapl:0:0/energy_uj": 500_000,
            "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": 10_000_000,
        },
    )
    sensor = Rapl(tmp_path)
    sensor.open()
    package, dram = Channel("RAPL", "package-0", "energy_j"), Channel("RAPL", "package-0 dram", "energy_j")
    assert sensor.read() == {package: 9.0, dram: 0.5}
    (tmp_path / top / "energy_uj").write_text("2000000")
    assert sensor.read()[package] == pytest.approx(12.0)
    (tmp_path / top / "energy_uj").write_text("3000000")
    assert sensor.read()[package] == pytest.approx(13.0)


def test_rapl_that_only_root_may_read_says_so(tmp_path: Path) -> None:
    _files(tmp_path, **{"sys/class/powercap/intel-rapl:0/name": "package-0"})
    with pytest.raises(SensorAbsentError, match="root alone"):
        Rapl(tmp_path).open()
