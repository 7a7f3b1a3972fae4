"""Energy from counters and from power, what is counted as the whole, and the report."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

from motedge.profile.energy import energy_between, energy_report, whole_machine
from motedge.profile.sensors.sampler import SensorLog
from motedge.profile.sensors.sensor import BOARD, CPU, ENERGY_J, GPU, POWER_W, Channel

PARTS = {"Linux": BOARD, "tegrastats": BOARD, "NVML": GPU, "RAPL": CPU}


def _log(*channels: Channel, times=None, **values) -> SensorLog:
    log = SensorLog()
    times = np.linspace(0, 10, 101) if times is None else times
    for at_s in times:
        log.samples.append((float(at_s), {c: float(values.get(c.name, lambda t: 5.0)(at_s)) for c in channels}))
    return log


def test_power_is_added_up_as_scipy_does() -> None:
    rail = Channel("Linux", "VDD_IN", POWER_W)
    log = _log(rail, VDD_IN=lambda t: 5 + 3 * np.sin(t))
    (energy,) = energy_between(log, 2.0, 8.0)
    times = np.linspace(2.0, 8.0, 61)
    assert energy.joules == pytest.approx(integrate.trapezoid(5 + 3 * np.sin(times), times), rel=1e-6)
    assert energy.seconds == 6.0 and energy.watts == pytest.approx(energy.joules / 6)
    # Against the integral itself: what trapezoids of 0.1 s are off
    assert energy.joules == pytest.approx(30 - 3 * (np.cos(8) - np.cos(2)), rel=1e-3)


def test_counters_are_read_off_between_readings() -> None:
    gpu = Channel("NVML", "GPU 0", ENERGY_J)
    log = _log(gpu, **{"GPU 0": lambda t: 1000 + 200 * t})
    (energy,) = energy_between(log, 2.05, 7.95)
    assert energy.joules == pytest.approx(200 * 5.9)
    # The readings end before the stretch does: the rate that was seen is carried on
    (energy,) = energy_between(log, 5.0, 12.0)
    assert energy.joules == pytest.approx(200 * 7.0)


def test_too_few_readings_say_nothing() -> None:
    log = _log(Channel("NVML", "GPU 0", POWER_W))
    assert energy_between(log, 2.0, 2.15) == []
    assert energy_between(log, 3.0, 3.0) == []


def _energies(*channels: Channel):
    return energy_between(_log(*channels), 1.0, 9.0)


def test_nothing_is_counted_twice() -> None:
    rails = [Channel(s, n, POWER_W) for s in ("Linux", "tegrastats") for n in ("VDD_IN", "VDD_SOC")]
    gpu = [Channel("NVML", "GPU 0", kind) for kind in (POWER_W, ENERGY_J)]
    cpu = [Channel("RAPL", name, ENERGY_J) for name in ("package-0", "package-0 core", "package-0 dram")]
    names = [str(e.channel) for e in whole_machine(_energies(*rails, *gpu, *cpu), PARTS)]
    assert names == ["Linux VDD_IN"]
    orin = [Channel("tegrastats", n, POWER_W) for n in ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")]
    assert [e.channel.name for e in whole_machine(_energies(*orin), PARTS)] == [c.name for c in orin]
    found = whole_machine(_energies(*gpu, *cpu), PARTS)
    assert [(e.channel.name, e.channel.kind) for e in found] == [
        ("GPU 0", ENERGY_J),
        ("package-0", ENERGY_J),
        ("package-0 dram", ENERGY_J),
    ]
    assert whole_machine([], PARTS) == ()


def test_report() -> None:
    rail = Channel("tegrastats", "VDD_IN", POWER_W)
    spent = energy_between(_log(rail, VDD_IN=lambda t: 20.0), 1.0, 9.0)
    idle = energy_between(_log(rail, VDD_IN=lambda t: 8.0), 1.0, 2.0)
    report = energy_report(spent, idle, PARTS, chunks=16)
    assert report is not None
    assert report["per_chunk_j"] == pytest.approx(10.0) and report["power_w"] == 20.0
    assert report["above_idle_j"] == pytest.approx(6.0) and report["counted"] == ["tegrastats VDD_IN, by power"]
    assert report["of"] == ["board"]
    assert report["channels"]["tegrastats VDD_IN, by power"]["idle_w"] == 8.0
    both = [Channel("NVML", "GPU 0", kind) for kind in (POWER_W, ENERGY_J)]
    found = energy_report(_energies(*both), [], PARTS, chunks=2)
    assert (
        found is not None
        and found["of"] == ["gpu"]
        and found["counted"] == ["NVML GPU 0, by counter"]
        and len(found["channels"]) == 2
    )
    without_idle = energy_report(spent, [], PARTS, chunks=16)
    assert without_idle is not None and without_idle["above_idle_j"] is None
    assert energy_report([], [], PARTS, chunks=16) is None
