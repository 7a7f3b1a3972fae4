"""The same GPUs through nvidia-smi, which comes with the driver: where the package nvidia-ml-py is not installed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Optional

from motedge.profile.sensors.line_program import LineProgram
from motedge.profile.sensors.sensor import (
    CLOCK_MHZ,
    GPU,
    LOAD_PERCENT,
    MEMORY_BYTES,
    POWER_W,
    TEMPERATURE_C,
    Channel,
    SensorAbsentError,
)

_NAME = "nvidia-smi"
# Fields of --query-gpu in the order of the columns, with unit: name, kind, factor
_FIELDS = (
    ("power.draw", "", POWER_W, 1.0),
    ("clocks.sm", "", CLOCK_MHZ, 1.0),
    ("clocks.mem", " memory", CLOCK_MHZ, 1.0),
    ("temperature.gpu", "", TEMPERATURE_C, 1.0),
    ("utilization.gpu", "", LOAD_PERCENT, 1.0),
    ("memory.used", "", MEMORY_BYTES, float(1 << 20)),
)


def parse_nvidia_smi(line: str, index: int = 0) -> dict[Channel, float]:
    """Values of one line of CSV without units; "[N/A]" and the like are left out."""
    found: dict[Channel, float] = {}
    for cell, (_, suffix, kind, factor) in zip(line.split(","), _FIELDS):
        try:
            value = float(cell)
        except ValueError:
            continue
        found[Channel(_NAME, f"GPU {index}{suffix}", kind)] = factor * value
    return found


class NvidiaSmi:
    """A `Sensor`."""

    name, part = _NAME, GPU

    def __init__(self, index: int = 0, interval_ms: float = 100.0, command: Optional[str] = None) -> None:
        """`index`: which GPU; `command`: the program, found through PATH by default."""
        self._index, self._interval_ms, self._command = index, interval_ms, command
        self._program: Optional[LineProgram] = None

    def open(self) -> None:
        """See Sensor."""
        command = self._command or shutil.which("nvidia-smi")
        if command is None:
            raise SensorAbsentError("nvidia-smi is not installed: NVIDIA's driver brings it")
        query = f"--query-gpu={','.join(field for field, *_ in _FIELDS)}"
        every = f"--loop-ms={max(20, int(self._interval_ms))}"
        program = LineProgram([command, query, "--format=csv,noheader,nounits", f"--id={self._index}", every])
        program.start()
        self._program = program
        line = program.latest()
        if not parse_nvidia_smi(line, self._index):
            self.close()
            raise SensorAbsentError(f"nvidia-smi: {line[:80]}")

    def read(self) -> Mapping[Channel, float]:
        """See Sensor."""
        return {} if self._program is None else parse_nvidia_smi(self._program.latest(), self._index)

    def facts(self) -> Mapping[str, str]:
        """See Sensor."""
        return {}

    def close(self) -> None:
        """See Sensor."""
        if self._program is not None:
            self._program.stop()
            self._program = None
