"""All sensors that motedge knows; which of them are here shows when they are opened."""

from __future__ import annotations

import importlib.util
import os
from typing import Optional

from motedge.profile.sensors.jtop import Jtop
from motedge.profile.sensors.linux import LinuxFiles
from motedge.profile.sensors.nvidia_smi import NvidiaSmi
from motedge.profile.sensors.nvml import Nvml
from motedge.profile.sensors.rapl import Rapl
from motedge.profile.sensors.sensor import Sensor
from motedge.profile.sensors.tegrastats import Tegrastats


def all_sensors(gpu: int = 0, interval_ms: float = 100.0) -> list[Sensor]:
    """Not opened yet. nvidia-smi stands in for NVML where its package is missing.

    Args:
        gpu: which GPU is looked at, as CUDA counts.
        interval_ms: of the programs that print by themselves.
    """
    index = driver_index(gpu, os.environ.get("CUDA_VISIBLE_DEVICES"))
    card: Sensor = Nvml(index) if importlib.util.find_spec("pynvml") is not None else NvidiaSmi(index, interval_ms)
    return [LinuxFiles(), Tegrastats(interval_ms), Jtop(), card, Rapl()]


def driver_index(gpu: int, visible: Optional[str]) -> int:
    """The driver's number of the GPU that CUDA calls `gpu`; NVML does not heed CUDA_VISIBLE_DEVICES.

    Identifiers that are no numbers (UUIDs, MIG) are not looked up: the number is then taken as it is.
    """
    names = [] if visible is None else [name.strip() for name in visible.split(",")]
    if gpu < len(names) and names[gpu].isdigit():
        return int(names[gpu])
    return gpu
