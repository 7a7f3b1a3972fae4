"""The Cuda protocol over a provider's raw calls: ownership, the ledger, errors and order, once for all providers."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Optional, Union

import numpy as np

from motedge.memory import available_memory
from motedge.runtime.cuda.error_names import OUT_OF_MEMORY_FIX
from motedge.runtime.cuda.errors import CaptureError, CudaError, OutOfDeviceMemoryError
from motedge.runtime.cuda.graph import GraphCapture
from motedge.runtime.cuda.holdings import Holdings
from motedge.runtime.cuda.interface import PRIORITIES, DeviceFacts, Kernel, KernelArgument, Stream
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.cuda.objects import (
    ProvidedEvent,
    ProvidedGraph,
    ProvidedKernel,
    ProvidedMemory,
    ProvidedStream,
    token_of,
)
from motedge.runtime.cuda.priority import numeric_priority
from motedge.runtime.cuda.raw import RawCuda
from motedge.runtime.engine import Array

Size = Union[int, Sequence[int]]


class ProvidedCuda:
    """One GPU's primary context, shared with every other library in the process that uses it.

    Whatever it hands out is freed by `close`, or when nothing refers to it any more, or at the end of the process.
    Pinned arrays are views of memory that `close` frees: they must not be touched afterwards.
    """

    def __init__(self, raw: RawCuda, graphs: Optional[GraphCapture] = None, choice: str = "") -> None:
        """Takes over `raw`. `graphs`: None where nothing can be captured. `choice`: why this provider."""
        self._raw, self._graphs, self.choice = raw, graphs, choice
        self._holdings = Holdings(raw)
        self._modules: dict[str, Any] = {}
        self._functions: dict[tuple[str, str], Any] = {}
        self._finalizer = weakref.finalize(self, self._holdings.close_at_exit)

    @property
    def provider(self) -> str:
        """See Cuda."""
        return self._raw.name

    @property
    def facts(self) -> DeviceFacts:
        """See Cuda."""
        return self._raw.facts

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """See Cuda."""
        self._holdings.require_usable()
        self._raw.push()
        try:
            yield
        except BaseException:
            with contextlib.suppress(CudaError):
                self._raw.pop()
            raise
        try:
            self._raw.pop()
        except CudaError:
            # Closed meanwhile: the context is gone, and with it what there was to pop
            if not self._holdings.closed:
                raise

    def allocate(self, nbytes: int, purpose: str) -> ProvidedMemory:
        """See Cuda."""
        self._holdings.require_usable()
        if nbytes < 1:
            raise CudaError(f"the GPU gives no memory for {purpose}", expected="at least 1 byte", got=nbytes)
        try:
            token, pointer = self._raw.allocate(nbytes)
        except OutOfDeviceMemoryError as error:
            raise self._no_room(nbytes, purpose, error) from error
        key = self._holdings.add("memory", partial(self._raw.free, token))
        self._holdings.ledger.add(purpose, nbytes)
        return ProvidedMemory(self, self._holdings, key, pointer, nbytes, purpose)

    def _no_room(self, nbytes: int, purpose: str, error: CudaError) -> OutOfDeviceMemoryError:
        try:
            free, total = self._memory_info()
            got = f"{free:,} of {total:,} bytes free"
        except CudaError:
            got = str(error.got)
        return OutOfDeviceMemoryError(
            f"the GPU has no room for {purpose}",
            expected=f"{nbytes:,} bytes in one block",
            got=got,
            why=f"this process holds {self._holdings.ledger.in_words()} through motedge; the rest is other libraries' "
            "and other processes'",
            fix=OUT_OF_MEMORY_FIX,
        )

    def pinned(self, shape: Sequence[int], dtype: Any) -> Array:
        """See Cuda."""
        self._holdings.require_usable()
        kind = np.dtype(dtype)
        nbytes = math.prod(shape) * kind.itemsize
        # Nothing has no address, and an array needs one
        room = max(nbytes, 1)
        try:
            token, pointer = self._raw.pin(room)
        except OutOfDeviceMemoryError as error:
            what = f"the host gives no {room:,} bytes of page-locked memory"
            raise OutOfDeviceMemoryError(what, got=error.got, fix="free memory of the host") from error
        self._holdings.add("pinned", partial(self._raw.unpin, token))
        self._holdings.ledger.add(PINNED, room)
        raw = np.frombuffer((ctypes.c_uint8 * room).from_address(pointer), np.uint8)
        raw[:] = 0
        array: Array = raw[:nbytes].view(kind).reshape(tuple(shape))
        return array

    def stream(self, priority: str = "normal") -> ProvidedStream:
        """See Cuda."""
        self._holdings.require_usable()
        if priority not in PRIORITIES:
            raise CudaError("a stream has no such priority", expected=" or ".join(PRIORITIES), got=priority)
        number = numeric_priority(self._raw, priority)
        token, handle = self._raw.stream(number)
        key = self._holdings.add(
            "stream", partial(self._raw.destroy_stream, token), partial(self._raw.synchronize, token)
        )
        return ProvidedStream(self, self._holdings, key, token, handle, number)

    def event(self) -> ProvidedEvent:
        """See Cuda."""
        self._holdings.require_usable()
        token = self._raw.event()
        key = self._holdings.add("event", partial(self._raw.destroy_event, token))
        return ProvidedEvent(self, self._holdings, key, token)

    def copy(self, destination: int, source: int, nbytes: int, stream: Stream) -> None:
        """See Cuda."""
        self._raw.copy(destination, source, nbytes, token_of(stream))

    def copy_rows(
        self,
        destination: int,
        destination_pitch: int,
        source: int,
        source_pitch: int,
        width: int,
        rows: int,
        stream: Stream,
    ) -> None:
        """See Cuda."""
        self._raw.copy_rows(destination, destination_pitch, source, source_pitch, width, rows, token_of(stream))

    def zero(self, pointer: int, nbytes: int, stream: Stream) -> None:
        """See Cuda."""
        self._raw.zero(pointer, nbytes, token_of(stream))

    def wait_for_producer(self, stream: Stream, producer: int) -> None:
        """See Cuda."""
        self._raw.wait_for_handle(token_of(stream), producer)

    def kernel(self, image: bytes, name: str) -> ProvidedKernel:
        """See Cuda."""
        self._holdings.require_usable()
        key = hashlib.sha256(image).hexdigest()
        if key not in self._modules:
            # PTX is text and must end in a zero byte; a cubin knows its own length
            module = self._raw.load_module(bytes(image) + b"\0")
            self._holdings.add("module", partial(self._raw.unload_module, module))
            self._modules[key] = module
        if (key, name) not in self._functions:
            self._functions[key, name] = self._raw.function(self._modules[key], name)
        return ProvidedKernel(self, self._holdings, name, self._functions[key, name])

    def launch(
        self,
        kernel: Kernel,
        grid: Size,
        block: Size,
        arguments: Sequence[KernelArgument],
        stream: Stream,
        shared_bytes: int = 0,
    ) -> None:
        """See Cuda."""
        wrong = [type(argument).__name__ for argument in arguments if not isinstance(argument, np.number)]
        if wrong:
            expected = "numpy numbers, whose type is the kernel's parameter's"
            raise CudaError(f"kernel {kernel.name!r} can't be launched", expected=expected, got=", ".join(wrong))
        sizes = _three(grid), _three(block)
        try:
            self._raw.launch(token_of(kernel), *sizes, arguments, token_of(stream), shared_bytes)
        except CudaError as error:
            what = f"kernel {kernel.name!r} can't be launched on grid {sizes[0]}, block {sizes[1]}"
            raise type(error)(what, expected=error.expected, got=error.got, why=error.why, fix=error.fix) from error

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> ProvidedGraph:
        """See Cuda."""
        token_of(stream)
        if self._graphs is None:
            raise CaptureError(
                "CUDA graphs need the package cuda-bindings", why="pycuda has none", fix='pip install "motedge[cuda]"'
            )
        handle = self._graphs.capture(stream.handle, enqueue)
        key = self._holdings.add("graph", partial(self._graphs.destroy, handle))
        return ProvidedGraph(self, self._holdings, key, self._graphs, handle)

    def memory_info(self) -> tuple[int, int]:
        """See Cuda."""
        self._holdings.require_usable()
        return self._memory_info()

    def _memory_info(self) -> tuple[int, int]:
        free, total = self._raw.memory_info()
        if self.facts.integrated:
            # The driver tells what lies idle (MemFree), and an engine's file that has been read is in the page cache
            free = max(free, available_memory() or 0)
        return free, total

    @property
    def ledger(self) -> dict[str, int]:
        """See Cuda."""
        return self._holdings.ledger.as_dict()

    def close(self) -> None:
        """See Cuda."""
        self._holdings.close()


def _three(size: Size) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, int) else tuple(size)
    x, y, z = (*sizes, 1, 1)[:3]
    return int(x), int(y), int(z)
