"""The compute capability of this machine's GPU, from the driver: engines built on a device are for its own GPU."""

from __future__ import annotations

import ctypes
import functools
from typing import Optional

# cuda.h: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_MAJOR, _MINOR = 75, 76
_DRIVER = "libcuda.so.1"


@functools.lru_cache(maxsize=1)
def this_compute_capability() -> Optional[str]:
    """ "8.7" of the first GPU that this process may use; None without a driver or a GPU.

    Asked of the driver, since nvidia-smi says nothing of the integrated GPUs of Jetson Orin. Makes no CUDA context.
    """
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    # Each returns 0 when it is done; what follows a failure is not called
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    if failed:
        return None
    return f"{major.value}.{minor.value}"
