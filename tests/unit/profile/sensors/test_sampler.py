"""The thread that reads sensors: it keeps quiet when told, and outlives what it reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import pytest

from motedge.profile.sensors.find import all_sensors
from motedge.profile.sensors.sampler import Sampler
from motedge.profile.sensors.sensor import GPU, POWER_W, Channel, SensorAbsentError

POWER = Channel("fake", "GPU 0", POWER_W)


class FakeSensor:
    name, part = "fake", GPU

    def __init__(self, *, absent: str = "", gone_after: int = 10**9, slow_s: float = 0.0) -> None:
        self.absent, self.gone_after, self.slow_s = absent, gone_after, slow_s
        self.reads: list[float] = []
        self.closed = 0

    def open(self) -> None:
        if self.absent:
            raise SensorAbsentError(self.absent)

    def read(self) -> Mapping[Channel, float]:
        if len(self.reads) >= self.gone_after:
            raise OSError("the device is gone")
        self.reads.append(time.perf_counter())
        time.sleep(self.slow_s)
        return {POWER: 10.0}

    def facts(self) -> Mapping[str, str]:
        return {"limit": "15 W"}

    def close(self) -> None:
        self.closed += 1


def test_reads_every_interval_and_closes() -> None:
    sensor = FakeSensor()
    with Sampler([sensor], 5) as sampler:
        time.sleep(0.1)
    assert len(sensor.reads) >= 5 and sensor.closed == 1
    assert sampler.log.present == {"fake": {"limit": "15 W"}} and sampler.parts == {"fake": GPU}
    assert sampler.log.channels() == [POWER] and len(sampler.log.series(POWER)) == len(sampler.log.samples)


def test_no_reading_while_something_is_timed() -> None:
    sensor = FakeSensor(slow_s=0.002)
    quiet = []
    with Sampler([sensor], 2) as sampler:
        for _ in range(10):
            with sampler.quiet():
                start_s = time.perf_counter()
                time.sleep(0.01)
                quiet.append((start_s, time.perf_counter()))
    assert len(sensor.reads) >= 10, "one reading between every two, at this interval"
    assert not any(start_s < read_s < end_s for start_s, end_s in quiet for read_s in sensor.reads)


def test_absent_and_vanishing_sensors_are_named() -> None:
    absent, fading = FakeSensor(absent="not installed"), FakeSensor(gone_after=2)
    absent.name, fading.name = "absent", "fading"
    with Sampler([absent, fading], 2) as sampler:
        time.sleep(0.05)
        start_s = time.perf_counter()
        with sampler.quiet():
            pass
        assert time.perf_counter() - start_s < 1
    assert sampler.log.absent == {"absent": "not installed", "fading": "gone: OSError: the device is gone"}
    assert fading.closed == 1


class HangingSensor(FakeSensor):
    """Never returns, until the test lets it."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.go = where, threading.Event()
        self.name = "hanging"

    def open(self) -> None:
        if self.where == "open":
            self.go.wait()

    def read(self) -> Mapping[Channel, float]:
        if self.where == "read":
            self.go.wait()
        return super().read()


@pytest.mark.parametrize("where", ["open", "read"])
def test_a_sensor_that_hangs_costs_its_patience_once(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sampler, "patience_s", 0.2)
    monkeypatch.setattr(Sampler, "opening_s", 0.2)
    sensor = HangingSensor(where)
    start_s = time.perf_counter()
    with Sampler([FakeSensor(), sensor], 1) as sampler:
        for _ in range(20):
            with sampler.quiet():
                pass
    assert time.perf_counter() - start_s < 2
    assert "does not answer" in sampler.log.absent["hanging"]
    sensor.go.set()


def test_without_sensors_nothing_is_waited_for() -> None:
    start_s = time.perf_counter()
    with Sampler([], 1000) as sampler:
        sampler.sample()
        with sampler.quiet():
            pass
    assert time.perf_counter() - start_s < 1
    assert sampler.log.channels() == []


def test_all_sensors_of_this_machine_open_or_say_why() -> None:
    sensors = all_sensors(interval_ms=50)
    names = {sensor.name for sensor in sensors}
    assert {"Linux", "tegrastats", "jtop", "RAPL"} < names
    with Sampler(sensors, 50) as sampler:
        sampler.sample()
    assert names == set(sampler.log.present) | set(sampler.log.absent)
    assert all(sampler.log.absent.values())
