"""NVIDIA's GPUs through NVML: energy, power, clocks, temperature, load, memory, reasons of slower clocks.

By the package nvidia-ml-py (module pynvml). What a GPU does not tell is left out: integrated ones tell little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional

from motedge.profile.sensors.sensor import (
    CLOCK_MHZ,
    ENERGY_J,
    GPU,
    LOAD_PERCENT,
    MEMORY_BYTES,
    POWER_W,
    TEMPERATURE_C,
    THROTTLED,
    Channel,
    SensorAbsentError,
)

# nvml.h, nvmlClocksEventReason*; idle (0x1) and chosen clocks (0x2, 0x10, 0x100) slow nothing down unasked
REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "heat, by software",
    0x40: "heat, by hardware",
    0x80: "power brake",
}
# nvml.h: NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU
_SM, _MEM, _TEMPERATURE = 1, 2, 0


class Nvml:
    """A `Sensor`."""

    name, part = "NVML", GPU

    def __init__(self, index: int = 0, library: Optional[Any] = None) -> None:
        """`index`: which GPU; `library`: the pynvml module, imported by default."""
        self._index, self._library, self._gpu = index, library, None
        self._open = False

    def open(self) -> None:
        """See Sensor."""
        if self._library is None:
            try:
                import pynvml
            except ImportError as error:
                raise SensorAbsentError("nvidia-ml-py is not installed: pip install nvidia-ml-py") from error
            self._library = pynvml
        try:
            self._library.nvmlInit()
            self._open = True
            self._gpu = self._library.nvmlDeviceGetHandleByIndex(self._index)
        except self._library.NVMLError as error:
            self.close()
            raise SensorAbsentError(f"NVML: {error}") from error
        if not self.read():
            self.close()
            raise SensorAbsentError("NVML tells nothing of this GPU")

    def read(self) -> Mapping[Channel, float]:
        """See Sensor."""
        library, gpu, name = self._library, self._gpu, f"GPU {self._index}"
        if library is None or not self._open:
            return {}
        found: dict[Channel, float] = {}

        def note(channel: str, kind: str, value: Callable[[], float]) -> None:
            try:
                found[Channel(self.name, channel, kind)] = float(value())
            except (library.NVMLError, AttributeError):
                # This GPU, or this version of the package, does not tell
                return

        note(name, ENERGY_J, lambda: library.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3)
        note(name, POWER_W, lambda: library.nvmlDeviceGetPowerUsage(gpu) / 1e3)
        note(name, CLOCK_MHZ, lambda: library.nvmlDeviceGetClockInfo(gpu, _SM))
        note(f"{name} memory", CLOCK_MHZ, lambda: library.nvmlDeviceGetClockInfo(gpu, _MEM))
        note(name, TEMPERATURE_C, lambda: library.nvmlDeviceGetTemperature(gpu, _TEMPERATURE))
        note(name, LOAD_PERCENT, lambda: library.nvmlDeviceGetUtilizationRates(gpu).gpu)
        note(name, MEMORY_BYTES, lambda: library.nvmlDeviceGetMemoryInfo(gpu).used)
        reasons = self._reasons()
        if reasons is not None:
            for bit, words in REASONS.items():
                found[Channel(self.name, f"{name}: {words}", THROTTLED)] = float(bool(reasons & bit))
        return found

    def facts(self) -> Mapping[str, str]:
        """See Sensor."""
        library, gpu = self._library, self._gpu
        found: dict[str, str] = {}
        if library is None or not self._open:
            return found
        asked: dict[str, Callable[[], str]] = {
            "GPU": lambda: _text(library.nvmlDeviceGetName(gpu)),
            "driver": lambda: _text(library.nvmlSystemGetDriverVersion()),
            "power limit": lambda: f"{library.nvmlDeviceGetPowerManagementLimit(gpu) / 1e3:g} W",
            "highest SM clock": lambda: f"{library.nvmlDeviceGetMaxClockInfo(gpu, _SM)} MHz",
        }
        for name, ask in asked.items():
            try:
                found[name] = ask()
            except (library.NVMLError, AttributeError):
                continue
        return found

    def close(self) -> None:
        """See Sensor."""
        if self._open and self._library is not None:
            self._open = False
            try:
                self._library.nvmlShutdown()
            except self._library.NVMLError:
                return

    def _reasons(self) -> Optional[int]:
        # Renamed in nvidia-ml-py 12.535
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            ask = getattr(self._library, name, None)
            if ask is None or self._library is None:
                continue
            try:
                return int(ask(self._gpu))
            except self._library.NVMLError:
                continue
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
