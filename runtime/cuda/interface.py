"""What the runtime needs of CUDA, as protocols. Pointers are integers: device addresses, or those of pinned arrays.

Two providers implement them (pycuda and cuda-bindings), and a simulated one in the tests, whose device memory is the
host's, so that the loop on the device is tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Union

from motedge.runtime.engine import Array

# Scalars of a kernel call carry their C type (np.int32, np.float32, np.uint64 for addresses)
KernelArgument = Any
PRIORITIES = ("high", "normal", "low")
# Engines take addresses that are multiples of this (TensorRT, IExecutionContext.set_tensor_address and
# set_device_memory); allocations start at one (CUDA C++ programming guide, device memory accesses)
ALIGNMENT_BYTES = 256


@dataclass(frozen=True)
class DeviceFacts:
    """One GPU as its driver describes it."""

    ordinal: int
    name: str
    # "9.0"
    compute_capability: str
    # Bytes of its memory, or of the machine's where it has none of its own
    total_memory_bytes: int
    # Shares the machine's memory, as every Jetson does
    integrated: bool
    # CUDA version that the driver supports: (13, 0)
    driver_cuda: tuple[int, int]


class DeviceMemory(Protocol):
    """A block of the GPU's memory."""

    @property
    def pointer(self) -> int:
        """Its address; a multiple of ALIGNMENT_BYTES."""
        ...

    @property
    def nbytes(self) -> int:
        """Its size."""
        ...

    def free(self) -> None:
        """Gives it back; harmless when repeated."""
        ...


class Stream(Protocol):
    """A queue of work on the GPU."""

    @property
    def handle(self) -> int:
        """CUstream, as engine libraries take it."""
        ...

    def synchronize(self) -> None:
        """Waits for all work. Raises CudaError for what went wrong in it."""
        ...

    def wait(self, event: Event) -> None:
        """Work enqueued after this waits for the event; the host does not."""
        ...


class Event(Protocol):
    """A point in a stream's work."""

    def record(self, stream: Stream) -> None:
        """Marks the point that the stream has reached."""
        ...

    def synchronize(self) -> None:
        """Waits until it has been passed."""
        ...

    @property
    def passed(self) -> bool:
        """Whether it has been passed."""
        ...

    def elapsed_ms(self, start: Event) -> float:
        """Milliseconds from `start` to this one, both passed."""
        ...


class Kernel(Protocol):
    """A function of a loaded module."""

    @property
    def name(self) -> str:
        """Its name in the module."""
        ...


class CudaGraph(Protocol):
    """Captured work, replayed with one launch."""

    def launch(self, stream: Stream) -> None:
        """Enqueues all of it."""
        ...

    def close(self) -> None:
        """Frees it; harmless when repeated."""
        ...


class Cuda(Protocol):
    """One GPU's primary context. Calls are for one thread at a time, each inside `current()`."""

    @property
    def provider(self) -> str:
        """ "pycuda", "cuda-bindings"."""
        ...

    @property
    def facts(self) -> DeviceFacts:
        """The GPU."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """Makes the context this thread's current one; may be nested. Raises HostError in a forked child."""
        ...

    def allocate(self, nbytes: int, purpose: str) -> DeviceMemory:
        """A block of at least `nbytes`, uninitialised; `purpose` names it in the ledger and in errors.

        Raises:
            OutOfDeviceMemoryError: says the purpose, what was asked, what is free, and what this process holds.
        """
        ...

    def pinned(self, shape: Sequence[int], dtype: Any) -> Array:
        """A page-locked numpy array, zeroed; lives until `close`. Its address is `array.ctypes.data`."""
        ...

    def stream(self, priority: str = "normal") -> Stream:
        """A stream that does not wait for the legacy default stream; lives until `close`.

        Args:
            priority: one of PRIORITIES. "low" is what streams have that were given none, as those of other software:
                CUDA has nothing below it. A provider without priorities warns when "high" is asked for.
        """
        ...

    def event(self) -> Event:
        """An event that can measure time; lives until `close`, so make it once, not once a tick."""
        ...

    def copy(self, destination: int, source: int, nbytes: int, stream: Stream) -> None:
        """Enqueues a copy between any two addresses: device or pinned host."""
        ...

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
        """Enqueues a copy of `rows` rows of `width` bytes, whose starts lie a pitch of bytes apart on either side."""
        ...

    def zero(self, pointer: int, nbytes: int, stream: Stream) -> None:
        """Enqueues zeros over device memory."""
        ...

    def wait_for_producer(self, stream: Stream, producer: int) -> None:
        """Makes later work of `stream` wait for what another library has put on its CUstream so far.

        Args:
            stream: ours.
            producer: the other's handle; 1 is the legacy default stream, 2 the calling thread's.
        """
        ...

    def kernel(self, image: bytes, name: str) -> Kernel:
        """A kernel of a module (cubin, fatbin or PTX); modules are loaded once and kept by content."""
        ...

    def launch(
        self,
        kernel: Kernel,
        grid: Union[int, Sequence[int]],
        block: Union[int, Sequence[int]],
        arguments: Sequence[KernelArgument],
        stream: Stream,
        shared_bytes: int = 0,
    ) -> None:
        """Enqueues a kernel."""
        ...

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> CudaGraph:
        """Captures what `enqueue` puts on `stream`; nothing of it runs.

        Raises:
            CaptureError: something that can't be captured; the stream is usable afterwards. Errors raised by
                `enqueue` itself end the capture and come through.
        """
        ...

    def memory_info(self) -> tuple[int, int]:
        """Bytes free and in all, as the driver sees them.

        Where the GPU shares the machine's memory, what the kernel gives back on demand (page cache) counts as free.
        """
        ...

    @property
    def ledger(self) -> dict[str, int]:
        """Bytes held through this object, by purpose."""
        ...

    def close(self) -> None:
        """Frees everything that was made through it, then the context; harmless when repeated."""
        ...
