"""What Linux tells of any machine: power monitors (hwmon), temperatures, clocks, and counters of throttling.

Jetson's INA3221 and INA238 monitors appear among them: these are the rails that tegrastats prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Optional

from motedge.doctor.host import read_text
from motedge.profile.sensors.sensor import (
    BOARD,
    CLOCK_MHZ,
    POWER_W,
    TEMPERATURE_C,
    THROTTLE_COUNT,
    Channel,
    SensorAbsentError,
)

_NAME = "Linux"
# Monitors of a board's supply; others measure a disk or a fan
_MONITORS = ("ina", "power_meter")


class LinuxFiles:
    """A `Sensor` over /sys; files that can't be read are left out, and looked for once."""

    name, part = _NAME, BOARD

    def __init__(self, root: Path = Path("/")) -> None:
        """`root`: the file system, another one in tests."""
        self._sys = root / "sys"
        # Channel -> files whose values are multiplied (several: volts and amperes), and the factor to the unit
        self._files: dict[Channel, tuple[tuple[Path, ...], float]] = {}
        self._clocks: tuple[Path, ...] = ()
        self._counters: tuple[Path, ...] = ()

    def open(self) -> None:
        """See Sensor."""
        self._files = {**dict(self._power()), **dict(self._zones()), **dict(self._gpu_clock())}
        cpus = self._sys / "devices/system/cpu"
        self._clocks = _readable(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        heat = cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
        # Over-current events of Jetson's soctherm
        current = (self._sys / "class/hwmon").glob("hwmon*/oc*_event_cnt")
        self._counters = _readable([*heat, *current])
        if not self._files and not self._clocks and not self._counters:
            raise SensorAbsentError("the kernel tells of no clocks, temperatures or power here")

    def read(self) -> Mapping[Channel, float]:
        """See Sensor."""
        found: dict[Channel, float] = {}
        for channel, (paths, factor) in self._files.items():
            value = factor
            for path in paths:
                number = _number(path)
                if number is None:
                    break
                value *= number
            else:
                found[channel] = value
        clocks = [khz for khz in map(_number, self._clocks) if khz is not None]
        if clocks:
            found[Channel(_NAME, "CPU", CLOCK_MHZ)] = sum(clocks) / len(clocks) / 1e3
        counts = [count for count in map(_number, self._counters) if count is not None]
        if counts:
            found[Channel(_NAME, "heat and over-current events", THROTTLE_COUNT)] = sum(counts)
        return found

    def facts(self) -> Mapping[str, str]:
        """See Sensor."""
        policies = self._sys / "devices/system/cpu/cpufreq"
        governors = {read_text(path) for path in policies.glob("policy*/scaling_governor")} - {None}
        limits = {
            f"{low:.0f} to {high:.0f} MHz"
            for folder in policies.glob("policy*")
            for low, high in [_limits(folder / "scaling_min_freq", folder / "scaling_max_freq")]
            if low is not None and high is not None
        }
        found = {"CPU governor": ", ".join(sorted(map(str, governors)))} if governors else {}
        if limits:
            found["CPU clock limits"] = ", ".join(sorted(limits))
        return found

    def close(self) -> None:
        """See Sensor."""
        self._files, self._clocks, self._counters = {}, (), ()

    def _power(self) -> Iterator[tuple[Channel, tuple[tuple[Path, ...], float]]]:
        """INA3221: in<N>_label, in<N>_input mV, curr<N>_input mA. Others: power<N>_input uW."""
        for monitor in sorted((self._sys / "class/hwmon").glob("hwmon*")):
            name = read_text(monitor / "name") or ""
            if not name.startswith(_MONITORS):
                continue
            for volts in sorted(monitor.glob("in[0-9]*_input")):
                number = volts.name[2 : -len("_input")]
                current, label = monitor / f"curr{number}_input", read_text(monitor / f"in{number}_label")
                if label is not None and _readable([volts, current]) == (volts, current):
                    yield Channel(_NAME, label, POWER_W), ((volts, current), 1e-6)
            for power in _readable(sorted(monitor.glob("power[0-9]*_input"))):
                label = read_text(power.with_name(power.name.replace("_input", "_label")))
                yield Channel(_NAME, label or f"{name} {power.name[:-6]}", POWER_W), ((power,), 1e-6)

    def _zones(self) -> Iterator[tuple[Channel, tuple[tuple[Path, ...], float]]]:
        for zone in sorted((self._sys / "class/thermal").glob("thermal_zone*")):
            if _readable([zone / "temp"]):
                kind = (read_text(zone / "type") or zone.name).replace("-thermal", "")
                yield Channel(_NAME, kind, TEMPERATURE_C), ((zone / "temp",), 1e-3)

    def _gpu_clock(self) -> Iterator[tuple[Channel, tuple[tuple[Path, ...], float]]]:
        # Jetson: "17000000.gpu" (Orin), "gpu-gpc-0" (Thor)
        for device in sorted((self._sys / "class/devfreq").glob("*gpu*")):
            if _readable([device / "cur_freq"]):
                yield Channel(_NAME, f"GPU {device.name}", CLOCK_MHZ), ((device / "cur_freq",), 1e-6)


def _limits(low: Path, high: Path) -> tuple[Optional[float], Optional[float]]:
    """MHz."""
    numbers = [_number(path) for path in (low, high)]
    return tuple(None if khz is None else khz / 1e3 for khz in numbers)  # type: ignore[return-value]


def _readable(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(path for path in paths if _number(path) is not None)


def _number(path: Path) -> Optional[float]:
    text = read_text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
