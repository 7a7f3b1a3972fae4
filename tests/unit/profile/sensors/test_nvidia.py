"""NVML and nvidia-smi on stand-ins, and jtop's values."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from motedge.profile.sensors.find import driver_index
from motedge.profile.sensors.jtop import Jtop, read_jtop
from motedge.profile.sensors.nvidia_smi import NvidiaSmi, parse_nvidia_smi
from motedge.profile.sensors.nvml import Nvml
from motedge.profile.sensors.sensor import SensorAbsentError


class NVMLError(Exception):
    pass


def _library(**changes: Any) -> Any:
    def refuse(*_: Any) -> Any:
        raise NVMLError("Not Supported")

    calls = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: 123_456,
        "nvmlDeviceGetPowerUsage": lambda gpu: 250_500,
        "nvmlDeviceGetClockInfo": lambda gpu, kind: {1: 1980, 2: 2619}[kind],
        "nvmlDeviceGetTemperature": lambda gpu, kind: 51,
        "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=87),
        "nvmlDeviceGetMemoryInfo": refuse,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: 0x4 | 0x1,
        "nvmlDeviceGetName": lambda gpu: b"NVIDIA H100",
        "nvmlSystemGetDriverVersion": lambda: "580.1",
        "nvmlDeviceGetPowerManagementLimit": lambda gpu: 700_000,
        "nvmlDeviceGetMaxClockInfo": refuse,
    }
    return SimpleNamespace(**{**calls, **changes})


def test_nvml() -> None:
    sensor = Nvml(0, _library())
    sensor.open()
    values = {(channel.name, channel.kind): value for channel, value in sensor.read().items()}
    assert values["GPU 0", "energy_j"] == 123.456 and values["GPU 0", "power_w"] == 250.5
    assert values["GPU 0", "clock_mhz"] == 1980 and values["GPU 0 memory", "clock_mhz"] == 2619
    assert values["GPU 0: power cap", "throttled"] == 1 and values["GPU 0: heat, by hardware", "throttled"] == 0
    assert not any(kind == "memory_bytes" for _, kind in values)
    assert sensor.facts() == {"GPU": "NVIDIA H100", "driver": "580.1", "power limit": "700 W"}
    sensor.close()
    sensor.close()
    assert sensor.read() == {}


def test_nvml_of_an_older_package_and_an_integrated_gpu() -> None:
    library = _library(nvmlDeviceGetCurrentClocksThrottleReasons=lambda gpu: 0x40)
    del library.nvmlDeviceGetCurrentClocksEventReasons
    del library.nvmlDeviceGetTotalEnergyConsumption
    sensor = Nvml(0, library)
    sensor.open()
    values = {(channel.name, channel.kind): value for channel, value in sensor.read().items()}
    assert values["GPU 0: heat, by hardware", "throttled"] == 1
    assert ("GPU 0", "energy_j") not in values


def test_nvml_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise NVMLError("NVML Shared Library Not Found")

    with pytest.raises(SensorAbsentError, match="Shared Library"):
        Nvml(0, _library(nvmlInit=fail)).open()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(SensorAbsentError, match="pip install"):
        Nvml().open()


@pytest.mark.parametrize(
    ("gpu", "visible", "index"),
    [(0, None, 0), (1, None, 1), (0, "3", 3), (1, "2, 5", 5), (2, "2,5", 2), (0, "GPU-8f2c", 0), (0, "", 0)],
)
def test_gpus_as_the_driver_counts_them(gpu: int, visible: str, index: int) -> None:
    assert driver_index(gpu, visible) == index


def test_nvidia_smi_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    # As an H100 prints them, and as an integrated GPU does
    values = {(c.name, c.kind): v for c, v in parse_nvidia_smi("69.88, 345, 2619, 28, 0, 4").items()}
    assert values["GPU 0", "power_w"] == 69.88 and values["GPU 0", "clock_mhz"] == 345
    assert values["GPU 0", "memory_bytes"] == 4 * 2**20 and values["GPU 0", "temperature_c"] == 28
    assert len(parse_nvidia_smi("[N/A], 1575, [N/A], 40, 3, [N/A]")) == 3
    assert parse_nvidia_smi("No devices were found") == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SensorAbsentError, match="not installed"):
        NvidiaSmi().open()


def test_jtop_values() -> None:
    # Keys of jetson-stats 4: rails in mW, clocks in kHz
    jetson = SimpleNamespace(
        power={
            "rail": {"VDD_GPU_SOC": {"volt": 5000, "curr": 600, "power": 3000, "online": True}},
            "tot": {"power": 1},
        },
        temperature={"cpu": {"temp": 47.5, "online": True}, "cv0": {"temp": -256, "online": False}},
        gpu={"ga10b": {"status": {"load": 42.0}, "freq": {"cur": 1_300_500}}},
    )
    values = {(c.name, c.kind): v for c, v in read_jtop(jetson).items()}
    assert values == {
        ("VDD_GPU_SOC", "power_w"): 3.0,
        ("cpu", "temperature_c"): 47.5,
        ("ga10b", "clock_mhz"): 1300.5,
        ("ga10b", "load_percent"): 42.0,
    }
    assert read_jtop(SimpleNamespace(power=None, temperature={"x": 3}, gpu={})) == {}


def test_jtop_without_package_or_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", None)
    with pytest.raises(SensorAbsentError, match="pip install jetson-stats"):
        Jtop().open()

    class Service:
        def start(self) -> None:
            raise RuntimeError("The jtop.service is not active")

    monkeypatch.setitem(sys.modules, "jtop", SimpleNamespace(jtop=Service))
    sensor = Jtop()
    with pytest.raises(SensorAbsentError, match="not active"):
        sensor.open()
    assert sensor.read() == {} and sensor.facts() == {}
    sensor.close()
