"""CUDA through cuda-bindings alone: NVIDIA's own, wheels for every machine, nothing to compile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from motedge.runtime.cuda.driver import Driver
from motedge.runtime.cuda.error_names import NOT_READY, cuda_error
from motedge.runtime.cuda.facts import device_facts, select_device
from motedge.runtime.cuda.interface import KernelArgument


class BindingsCalls:
    """RawCuda by cuda-bindings. Tokens are integers."""

    name = "cuda-bindings"
    has_priorities = True

    def __init__(self, driver: Driver, ordinal: int) -> None:
        self._driver = driver
        self._device = select_device(driver, ordinal)
        self.facts = device_facts(driver, self._device, ordinal)
        api = driver.api
        self._non_blocking = int(api.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self._event_flags = int(api.CUevent_flags.CU_EVENT_DEFAULT)
        self._unified = api.CUmemorytype.CU_MEMORYTYPE_UNIFIED
        # Retained last: nothing after it can fail and leave it retained
        what = f"GPU {ordinal} ({self.facts.name}) can't be opened"
        self._context = driver.call("cuDevicePrimaryCtxRetain", self._device, what=what)

    def push(self) -> None:
        """See RawCuda."""
        self._driver.call("cuCtxPushCurrent", self._context)

    def pop(self) -> None:
        """See RawCuda."""
        self._driver.call("cuCtxPopCurrent")

    def release(self) -> None:
        """See RawCuda."""
        self._driver.call("cuDevicePrimaryCtxRelease", self._device)

    def allocate(self, nbytes: int) -> tuple[int, int]:
        """See RawCuda."""
        pointer = int(self._driver.call("cuMemAlloc", nbytes))
        return pointer, pointer

    def free(self, block: int) -> None:
        """See RawCuda."""
        self._driver.call("cuMemFree", block)

    def pin(self, nbytes: int) -> tuple[int, int]:
        """See RawCuda."""
        pointer = int(self._driver.call("cuMemHostAlloc", nbytes, int(self._driver.api.CU_MEMHOSTALLOC_PORTABLE)))
        return pointer, pointer

    def unpin(self, block: int) -> None:
        """See RawCuda."""
        self._driver.call("cuMemFreeHost", block)

    def memory_info(self) -> tuple[int, int]:
        """See RawCuda."""
        free, total = self._driver.call("cuMemGetInfo")
        return int(free), int(total)

    def priorities(self) -> tuple[int, int]:
        """See RawCuda."""
        least, greatest = self._driver.call("cuCtxGetStreamPriorityRange")
        return int(least), int(greatest)

    def stream(self, priority: int) -> tuple[int, int]:
        """See RawCuda."""
        handle = int(self._driver.call("cuStreamCreateWithPriority", self._non_blocking, priority))
        return handle, handle

    def destroy_stream(self, stream: int) -> None:
        """See RawCuda."""
        self._driver.call("cuStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """See RawCuda."""
        self._driver.call("cuStreamSynchronize", stream, what="work on the GPU failed")

    def wait(self, stream: int, event: int) -> None:
        """See RawCuda."""
        self._driver.call("cuStreamWaitEvent", stream, event, 0)

    def wait_for_handle(self, stream: int, producer: int) -> None:
        """See RawCuda."""
        event = self.event()
        try:
            self.record(event, producer)
            self.wait(stream, event)
        finally:
            # The driver keeps it until it has been passed
            self.destroy_event(event)

    def event(self) -> int:
        """See RawCuda."""
        return int(self._driver.call("cuEventCreate", self._event_flags))

    def destroy_event(self, event: int) -> None:
        """See RawCuda."""
        self._driver.call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """See RawCuda."""
        self._driver.call("cuEventRecord", event, stream)

    def synchronize_event(self, event: int) -> None:
        """See RawCuda."""
        self._driver.call("cuEventSynchronize", event, what="work on the GPU failed")

    def passed(self, event: int) -> bool:
        """See RawCuda."""
        result = self._driver.attempt("cuEventQuery", event)[0]
        if result != 0 and self._driver.name_of(result) != NOT_READY:
            raise self._driver.error(result, "work on the GPU failed")
        return bool(result == 0)

    def elapsed_ms(self, start: int, end: int) -> float:
        """See RawCuda."""
        result = self._driver.attempt("cuEventElapsedTime", start, end)
        if result[0] != 0:
            why = "both events must have been recorded and passed"
            raise cuda_error(self._driver.name_of(result[0]), "the time between two events is not known", why=why)
        return float(result[1])

    def copy(self, destination: int, source: int, nbytes: int, stream: int) -> None:
        """See RawCuda."""
        self._driver.call("cuMemcpyAsync", destination, source, nbytes, stream)

    def copy_rows(
        self,
        destination: int,
        destination_pitch: int,
        source: int,
        source_pitch: int,
        width: int,
        rows: int,
        stream: int,
    ) -> None:
        """See RawCuda."""
        copy = self._driver.api.CUDA_MEMCPY2D()
        copy.srcMemoryType = copy.dstMemoryType = self._unified
        copy.srcDevice, copy.srcPitch = source, source_pitch
        copy.dstDevice, copy.dstPitch = destination, destination_pitch
        copy.WidthInBytes, copy.Height = width, rows
        self._driver.call("cuMemcpy2DAsync", copy, stream)

    def zero(self, pointer: int, nbytes: int, stream: int) -> None:
        """See RawCuda."""
        self._driver.call("cuMemsetD8Async", pointer, 0, nbytes, stream)

    def load_module(self, image: bytes) -> Any:
        """See RawCuda."""
        return self._driver.call("cuModuleLoadData", image, what="a module of kernels can't be loaded")

    def unload_module(self, module: Any) -> None:
        """See RawCuda."""
        self._driver.call("cuModuleUnload", module)

    def function(self, module: Any, name: str) -> Any:
        """See RawCuda."""
        return self._driver.call("cuModuleGetFunction", module, name.encode(), what=f"no kernel {name!r} in the module")

    def launch(
        self,
        function: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[KernelArgument],
        stream: int,
        shared_bytes: int,
    ) -> None:
        """See RawCuda."""
        # The driver reads each argument through a pointer, before it returns
        values = [np.array(argument) for argument in arguments]
        addresses = np.array([value.ctypes.data for value in values], dtype=np.uint64)
        pointers = int(addresses.ctypes.data) if values else 0
        self._driver.call("cuLaunchKernel", function, *grid, *block, shared_bytes, stream, pointers, 0)
