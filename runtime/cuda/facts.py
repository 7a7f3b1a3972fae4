"""Which GPU it is, asked of the driver."""

from __future__ import annotations

from typing import Any

from motedge.errors import HostError
from motedge.runtime.cuda.driver import Driver
from motedge.runtime.cuda.interface import DeviceFacts


def select_device(driver: Driver, ordinal: int) -> Any:
    """The CUdevice of an ordinal.

    Raises:
        HostError: there is none of that number.
    """
    count = int(driver.call("cuDeviceGetCount"))
    if not 0 <= ordinal < count:
        raise HostError(
            f"there is no GPU {ordinal}",
            expected=f"0 to {count - 1}" if count else "at least one GPU",
            got=f"{count} GPUs",
            fix="check nvidia-smi and CUDA_VISIBLE_DEVICES",
        )
    return driver.call("cuDeviceGet", ordinal)


def device_facts(driver: Driver, device: Any, ordinal: int) -> DeviceFacts:
    """What the driver says of a GPU."""
    attributes = driver.api.CUdevice_attribute

    def attribute(name: str) -> int:
        return int(driver.call("cuDeviceGetAttribute", getattr(attributes, f"CU_DEVICE_ATTRIBUTE_{name}"), device))

    major, minor = attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")
    version = int(driver.call("cuDriverGetVersion"))
    name = driver.call("cuDeviceGetName", 128, device)
    return DeviceFacts(
        ordinal=ordinal,
        name=name.split(b"\0")[0].decode("utf-8", errors="replace"),
        compute_capability=f"{major}.{minor}",
        total_memory_bytes=int(driver.call("cuDeviceTotalMem", device)),
        integrated=bool(attribute("INTEGRATED")),
        driver_cuda=(version // 1000, version % 1000 // 10),
    )
