"""Jetson boards through jtop (package jetson-stats), whose service must be running."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from motedge.profile.sensors.sensor import (
    BOARD,
    CLOCK_MHZ,
    LOAD_PERCENT,
    POWER_W,
    TEMPERATURE_C,
    Channel,
    SensorAbsentError,
)

_NAME = "jtop"


def read_jtop(jetson: Any) -> dict[Channel, float]:
    """Values of a `jtop.jtop` (jetson-stats 4): rails in mW, temperatures in C, the GPU's clock in kHz."""
    found: dict[Channel, float] = {}
    for name, rail in _mapping(_mapping(jetson.power).get("rail")).items():
        power_mw = _mapping(rail).get("power")
        if isinstance(power_mw, (int, float)):
            found[Channel(_NAME, str(name), POWER_W)] = power_mw / 1e3
    for name, zone in _mapping(jetson.temperature).items():
        degrees, online = _mapping(zone).get("temp"), _mapping(zone).get("online", True)
        if online and isinstance(degrees, (int, float)):
            found[Channel(_NAME, str(name), TEMPERATURE_C)] = float(degrees)
    for name, gpu in _mapping(jetson.gpu).items():
        clock_khz = _mapping(_mapping(gpu).get("freq")).get("cur")
        load = _mapping(_mapping(gpu).get("status")).get("load")
        if isinstance(clock_khz, (int, float)):
            found[Channel(_NAME, str(name), CLOCK_MHZ)] = clock_khz / 1e3
        if isinstance(load, (int, float)):
            found[Channel(_NAME, str(name), LOAD_PERCENT)] = float(load)
    return found


class Jtop:
    """A `Sensor`."""

    name, part = _NAME, BOARD

    def __init__(self) -> None:
        self._jetson: Optional[Any] = None

    def open(self) -> None:
        """See Sensor."""
        try:
            import jtop
        except ImportError as error:
            raise SensorAbsentError("jetson-stats is not installed: pip install jetson-stats") from error
        try:
            jetson = jtop.jtop()
            jetson.start()
        except Exception as error:
            raise SensorAbsentError(f"jtop: {error}") from error
        self._jetson = jetson

    def read(self) -> Mapping[Channel, float]:
        """See Sensor."""
        if self._jetson is None:
            return {}
        if not self._jetson.ok(spin=True):
            raise SensorAbsentError("jtop's service has gone")
        return read_jtop(self._jetson)

    def facts(self) -> Mapping[str, str]:
        """See Sensor."""
        mode = getattr(self._jetson, "nvpmodel", None)
        return {} if mode is None else {"power mode": str(mode)}

    def close(self) -> None:
        """See Sensor."""
        jetson, self._jetson = self._jetson, None
        if jetson is not None:
            jetson.close()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
