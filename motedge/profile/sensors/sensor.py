"""The interface of a sensor: channels with a unit, read when asked, or a reason why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from motedge.errors import MotedgeError

POWER_W, ENERGY_J, TEMPERATURE_C, CLOCK_MHZ = "power_w", "energy_j", "temperature_c", "clock_mhz"
LOAD_PERCENT, MEMORY_BYTES = "load_percent", "memory_bytes"
# 1 while it happens; a counter that rises when it does
THROTTLED, THROTTLE_COUNT = "throttled", "throttle_count"
# What a sensor's power is that of. Rails of a board hold its GPU and CPU too
BOARD, GPU, CPU = "board", "gpu", "cpu"


@dataclass(frozen=True)
class Channel:
    """One series of numbers."""

    # Of the sensor
    sensor: str
    # "GPU 0", "VDD_IN", "package-0"
    name: str
    # One of the kinds above; ENERGY_J counts up from anywhere
    kind: str

    def __str__(self) -> str:
        return f"{self.sensor} {self.name}"


class SensorAbsentError(MotedgeError):
    """There is no such sensor here, or it does not answer; `what` says why."""


class Sensor(Protocol):
    """Reads one source. Used by one thread."""

    # How it is called in reports
    name: str
    # BOARD, GPU or CPU
    part: str

    def open(self) -> None:
        """Gets ready.

        Raises:
            SensorAbsentError: it can't be read here.
        """
        ...

    def read(self) -> Mapping[Channel, float]:
        """The values of now; channels that can't be read at the moment are left out.

        Raises:
            SensorAbsentError: it has gone.
        """
        ...

    def facts(self) -> Mapping[str, str]:
        """What does not change: names, limits, modes."""
        ...

    def close(self) -> None:
        """Ends what runs for it; harmless when repeated, or when it was never opened."""
        ...
