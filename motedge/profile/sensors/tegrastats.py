"""tegrastats: load, clocks, temperatures and power rails of a Jetson or DRIVE board, a line an interval.

Its lines differ between boards and releases; each field is looked for by itself, and one that is not there is left out.
Documented in the developer guide of Jetson Linux, "tegrastats Utility". Power rails are shown to root alone on some
releases.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from typing import Optional

from motedge.profile.sensors.line_program import LineProgram
from motedge.profile.sensors.sensor import (
    BOARD,
    CLOCK_MHZ,
    LOAD_PERCENT,
    MEMORY_BYTES,
    POWER_W,
    TEMPERATURE_C,
    Channel,
    SensorAbsentError,
)

_NAME = "tegrastats"
# "RAM 2467/7471MB"
_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
# "CPU [2%@729,off,1%@729]"; older: "CPU [1%,2%]@102"
_CPU = re.compile(r"\bCPU \[([^\]]*)\](?:@(\d+))?")
_CORE = re.compile(r"(\d+)%(?:@(\d+))?")
# "GR3D_FREQ 14%@[407,407]", "GR3D_FREQ 0%@305", "GR3D_FREQ 26%", "EMC_FREQ 0%@2133", "EMC_FREQ @665"
_ENGINE = re.compile(r"\b(GR3D|GR3D2|EMC)_FREQ (?:(\d+)%)?(?:@\[?(\d+)((?:,\d+)*)\]?)?")
# "gpu@45C", "CPU@77.281C", "tj@-256C"; the latter means that the zone is off
_TEMPERATURE = re.compile(r"\b([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b")
# "VDD_IN 4900mW/5000mW": now and on average since the start; before JetPack 5 without the unit
_RAIL = re.compile(r"\b((?:VDD|VIN|POM|VDDQ|CV|GPU|CPU|SYS|DDR|SOC)\w*) (\d+)(?:mW)?/(\d+)(?:mW)?(?= |$)")
_COLDEST_C = -200.0
_ENGINE_NAMES = {"GR3D": "GPU", "GR3D2": "GPU 2", "EMC": "memory controller"}


def parse_tegrastats(line: str) -> dict[Channel, float]:
    """Values of one line; power is the value of now, not tegrastats' average."""
    found: dict[Channel, float] = {}
    ram = _RAM.search(line)
    if ram is not None:
        found[Channel(_NAME, "RAM", MEMORY_BYTES)] = float(ram.group(1)) * (1 << 20)
    cpu = _CPU.search(line)
    if cpu is not None:
        cores = _CORE.findall(cpu.group(1))
        clocks = [float(clock) for _, clock in cores if clock] or ([float(cpu.group(2))] if cpu.group(2) else [])
        if cores:
            found[Channel(_NAME, "CPU", LOAD_PERCENT)] = sum(float(load) for load, _ in cores) / len(cores)
        if clocks:
            found[Channel(_NAME, "CPU", CLOCK_MHZ)] = sum(clocks) / len(clocks)
    for engine, load, clock, more in _ENGINE.findall(line):
        name = _ENGINE_NAMES[engine]
        if load:
            found[Channel(_NAME, name, LOAD_PERCENT)] = float(load)
        if clock:
            # One value a cluster of the GPU: the fastest
            found[Channel(_NAME, name, CLOCK_MHZ)] = max(float(c) for c in (clock, *filter(None, more.split(","))))
    for name, degrees in _TEMPERATURE.findall(line):
        if float(degrees) > _COLDEST_C:
            found[Channel(_NAME, name, TEMPERATURE_C)] = float(degrees)
    for rail, now_mw, _ in _RAIL.findall(line):
        found[Channel(_NAME, rail, POWER_W)] = float(now_mw) / 1e3
    return found


class Tegrastats:
    """A `Sensor`."""

    name, part = _NAME, BOARD

    def __init__(self, interval_ms: float = 100.0, command: Optional[str] = None) -> None:
        """`command`: the program, found through PATH by default."""
        self._interval_ms, self._command = interval_ms, command
        self._program: Optional[LineProgram] = None

    def open(self) -> None:
        """See Sensor."""
        command = self._command or shutil.which("tegrastats")
        if command is None:
            raise SensorAbsentError("tegrastats is not installed: Jetson and DRIVE boards have it")
        program = LineProgram([command, "--interval", str(max(1, int(self._interval_ms)))])
        program.start()
        self._program = program
        if not parse_tegrastats(program.latest()):
            line = program.latest()
            self.close()
            raise SensorAbsentError(f"tegrastats said nothing that is known: {line[:80]}")

    def read(self) -> Mapping[Channel, float]:
        """See Sensor."""
        return {} if self._program is None else parse_tegrastats(self._program.latest())

    def facts(self) -> Mapping[str, str]:
        """See Sensor."""
        rails = any(channel.kind == POWER_W for channel in self.read())
        return {} if rails else {"power": "no rails in its lines: some releases show them to root alone"}

    def close(self) -> None:
        """See Sensor."""
        if self._program is not None:
            self._program.stop()
            self._program = None
