"""CUDA through pycuda: memory, streams, events and kernels. It has no graphs and no stream priorities."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from motedge.errors import HostError
from motedge.runtime.cuda.driver import MIN_DRIVER_CUDA
from motedge.runtime.cuda.error_names import cuda_error
from motedge.runtime.cuda.interface import DeviceFacts, KernelArgument
from motedge.runtime.cuda.libcuda import LibCuda

# A copy of rows takes 32-bit pitches (CU_DEVICE_ATTRIBUTE_MAX_PITCH is 2^31 - 1); longer copies go in pieces
_COPY_BYTES_MAX = 1 << 30


class Box:
    """Holds a pycuda object, which its destructor frees: emptying the box is freeing, whoever holds the box."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def empty(self) -> None:
        """Drops the object. Does nothing the second time."""
        self.content = None


class PycudaCalls:
    """RawCuda by pycuda. Tokens are boxes."""

    name = "pycuda"
    has_priorities = False

    def __init__(self, ordinal: int) -> None:
        self._api = importlib.import_module("pycuda.driver")
        self._library = LibCuda()
        what = "CUDA can't be started on this machine"
        self._call(self._api.init, what=what)
        count = self._call(self._api.Device.count, what=what)
        if not 0 <= ordinal < count:
            fix = "check nvidia-smi and CUDA_VISIBLE_DEVICES"
            raise HostError(f"there is no GPU {ordinal}", expected=f"less than {count}", got=f"{count} GPUs", fix=fix)
        device = self._api.Device(ordinal)
        self.facts = self._call(self._describe, device, ordinal)
        if self.facts.driver_cuda < MIN_DRIVER_CUDA:
            raise HostError(
                "the NVIDIA driver is too old",
                expected=f"one for CUDA {MIN_DRIVER_CUDA[0]}.{MIN_DRIVER_CUDA[1]} or later",
                got=f"one for CUDA {self.facts.driver_cuda[0]}.{self.facts.driver_cuda[1]}",
                fix="install a newer driver (on a Jetson: JetPack 6 or later)",
            )
        what = f"GPU {ordinal} ({self.facts.name}) can't be opened"
        self._context = self._call(device.retain_primary_context, what=what)

    def _describe(self, device: Any, ordinal: int) -> DeviceFacts:
        version = self._api.get_driver_version()
        return DeviceFacts(
            ordinal=ordinal,
            name=device.name(),
            compute_capability="{}.{}".format(*device.compute_capability()),
            total_memory_bytes=int(device.total_memory()),
            integrated=bool(device.get_attribute(self._api.device_attribute.INTEGRATED)),
            driver_cuda=(version // 1000, version % 1000 // 10),
        )

    def _call(self, function: Callable[..., Any], *arguments: Any, what: str = "") -> Any:
        try:
            return function(*arguments)
        except self._api.Error as error:
            # "cuMemAlloc failed: out of memory", perhaps with " - " and more
            called, _, text = str(error).partition(" failed: ")
            name = self._library.name_of_text(text.split(" - ")[0])
            raise cuda_error(name, what or f"{called} failed", text=text) from error

    def push(self) -> None:
        """See RawCuda."""
        self._call(self._context.push)

    def pop(self) -> None:
        """See RawCuda."""
        # Once released, detach() has taken its entries off pycuda's stack: what is there now is somebody else's
        if self._context is not None:
            self._call(self._api.Context.pop)

    def release(self) -> None:
        """See RawCuda."""
        # detach() takes the context off pycuda's stack and leaves it on the driver's, where it was put for it
        outer = self._api.Context.get_current()
        context, self._context = self._context, None
        self._call(context.push)
        self._call(context.detach)
        self._library.pop()
        if outer is not None and outer != context:
            # pycuda had put its other context back on top of ours
            self._library.pop()
            self._library.push(outer.handle)

    def allocate(self, nbytes: int) -> tuple[Box, int]:
        """See RawCuda."""
        block = self._call(self._api.mem_alloc, nbytes)
        return Box(block), int(block)

    def free(self, block: Box) -> None:
        """See RawCuda."""
        if block.content is not None:
            self._call(block.content.free)
        block.empty()

    def pin(self, nbytes: int) -> tuple[Box, int]:
        """See RawCuda."""
        flags = self._api.host_alloc_flags.PORTABLE
        array = self._call(self._api.pagelocked_empty, (nbytes,), "uint8", "C", flags)
        # Its owner, which pycuda keeps from being collected: it must be freed by hand
        return Box(array.base), int(array.ctypes.data)

    def unpin(self, block: Box) -> None:
        """See RawCuda."""
        if block.content is not None:
            self._call(block.content.free)
        block.empty()

    def memory_info(self) -> tuple[int, int]:
        """See RawCuda."""
        free, total = self._call(self._api.mem_get_info)
        return int(free), int(total)

    def priorities(self) -> tuple[int, int]:
        """See RawCuda."""
        return 0, 0

    def stream(self, priority: int) -> tuple[Box, int]:
        """See RawCuda."""
        # CU_STREAM_NON_BLOCKING; pycuda takes the number
        stream = self._call(self._api.Stream, 1)
        return Box(stream), int(stream.handle)

    def destroy_stream(self, stream: Box) -> None:
        """See RawCuda."""
        stream.empty()

    def synchronize(self, stream: Box) -> None:
        """See RawCuda."""
        self._call(stream.content.synchronize, what="work on the GPU failed")

    def wait(self, stream: Box, event: Box) -> None:
        """See RawCuda."""
        self._call(stream.content.wait_for_event, event.content)

    def wait_for_handle(self, stream: Box, producer: int) -> None:
        """See RawCuda."""
        # pycuda's events take pycuda's streams alone
        code = self._library.wait_for_stream(stream.content.handle, producer)
        if code != 0:
            raise cuda_error(self._library.name_of_code(code), "a camera's stream can't be waited for")

    def event(self) -> Box:
        """See RawCuda."""
        return Box(self._call(self._api.Event))

    def destroy_event(self, event: Box) -> None:
        """See RawCuda."""
        event.empty()

    def record(self, event: Box, stream: Box) -> None:
        """See RawCuda."""
        self._call(event.content.record, stream.content)

    def synchronize_event(self, event: Box) -> None:
        """See RawCuda."""
        self._call(event.content.synchronize, what="work on the GPU failed")

    def passed(self, event: Box) -> bool:
        """See RawCuda."""
        return bool(self._call(event.content.query, what="work on the GPU failed"))

    def elapsed_ms(self, start: Box, end: Box) -> float:
        """See RawCuda."""
        return float(self._call(end.content.time_since, start.content, what="the time between two events is not known"))

    def copy(self, destination: int, source: int, nbytes: int, stream: Box) -> None:
        """See RawCuda."""
        # pycuda's other copies must know which side is the host's
        for offset in range(0, nbytes, _COPY_BYTES_MAX):
            piece = min(_COPY_BYTES_MAX, nbytes - offset)
            self.copy_rows(destination + offset, piece, source + offset, piece, piece, 1, stream)

    def copy_rows(
        self,
        destination: int,
        destination_pitch: int,
        source: int,
        source_pitch: int,
        width: int,
        rows: int,
        stream: Box,
    ) -> None:
        """See RawCuda."""
        copy = self._api.Memcpy2D()
        copy.src_memory_type = copy.dst_memory_type = self._api.memory_type.UNIFIED
        copy.src_device, copy.src_pitch = source, source_pitch
        copy.dst_device, copy.dst_pitch = destination, destination_pitch
        copy.width_in_bytes, copy.height = width, rows
        self._call(copy, stream.content)

    def zero(self, pointer: int, nbytes: int, stream: Box) -> None:
        """See RawCuda."""
        self._call(self._api.memset_d8_async, pointer, 0, nbytes, stream.content)

    def load_module(self, image: bytes) -> tuple[Box, dict[str, Any]]:
        """See RawCuda."""
        module = self._call(self._api.module_from_buffer, image, what="a module of kernels can't be loaded")
        # Functions keep their module alive, so they are held beside it and dropped with it
        return Box(module), {}

    def unload_module(self, module: tuple[Box, dict[str, Any]]) -> None:
        """See RawCuda."""
        module[1].clear()
        module[0].empty()

    def function(self, module: tuple[Box, dict[str, Any]], name: str) -> tuple[dict[str, Any], str]:
        """See RawCuda."""
        box, functions = module
        functions[name] = self._call(box.content.get_function, name, what=f"no kernel {name!r} in the module")
        return functions, name

    def launch(
        self,
        function: tuple[dict[str, Any], str],
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[KernelArgument],
        stream: Box,
        shared_bytes: int,
    ) -> None:
        """See RawCuda."""
        kernel = function[0][function[1]]

        def run() -> None:
            kernel(*arguments, grid=grid, block=block, stream=stream.content, shared=shared_bytes)

        self._call(run)
