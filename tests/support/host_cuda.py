"""`HostCuda`: the Cuda protocol on the host's memory, strict where a GPU would crash, race or silently go wrong.

    cuda = HostCuda(total_bytes=1 << 30, kernels={"add": add})     # add(cuda, grid, block, *arguments)
    with cuda.current():
        block = cuda.allocate(1024, "state")
        cuda.view(block.pointer, (16, 16), np.float32)[:] = 1       # a test looks into the "device"

- Calls outside `current()` fail, as they would for want of a context; free() and close() work anywhere.
- Fresh and freed memory reads as NaN. A range must lie in one live block or pinned array, or CudaError.
- While capturing, only what can be captured is allowed, and nothing runs. A graph replays by address.
- `deferred=True`: work runs when somebody waits for it, and not before: races of host and device show.
- `enqueue(stream, function)` puts any Python function on a stream: how simulated engines run.
- `inject("allocate", error, after=3)`: the fourth such call from now raises it; a sticky error stays.
- `counts["launch"]`, "copy", "allocate", "graph launch", ...: how often each ran; under a replay too.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np
from host_memory import HostMemory
from host_queue import HostBlock, HostCapture, HostEvent, HostGraph, HostKernel, HostStream, KernelFunction, Operation

from motedge.errors import HostError
from motedge.runtime.cuda import DeviceFacts
from motedge.runtime.cuda.errors import CaptureError, CudaError, OutOfDeviceMemoryError, StickyCudaError
from motedge.runtime.cuda.graph import CAPTURES
from motedge.runtime.cuda.interface import PRIORITIES
from motedge.runtime.cuda.ledger import PINNED, Ledger


class HostCuda:
    """See the module's text. Everything that the Cuda protocol has, and `view`, `enqueue`, `inject`, `counts`."""

    provider = "simulated"

    def __init__(
        self,
        total_bytes: int = 1 << 30,
        kernels: Optional[Mapping[str, KernelFunction]] = None,
        deferred: bool = False,
        compute_capability: str = "9.0",
    ) -> None:
        self.facts = DeviceFacts(0, "simulated GPU", compute_capability, total_bytes, False, (13, 0))
        self.choice = "the tests asked for it"
        self.kernels = dict(kernels or {})
        self.counts: Counter[str] = Counter()
        self.copied_bytes = 0
        self.memory, self.graphs = HostMemory(), set[HostGraph]()
        self._ledger, self._deferred, self._pid = Ledger(), deferred, os.getpid()
        self._local = threading.local()
        self._streams: dict[int, HostStream] = {}
        self._modules: set[tuple[bytes, str]] = set()
        self._sticky: Optional[StickyCudaError] = None
        self._injected: dict[str, list[tuple[int, Exception]]] = {}
        self._clock_ms = 0
        self.closed = False

    # What tests use

    def view(self, pointer: int, shape: Any, dtype: Any) -> np.ndarray[Any, Any]:
        """The memory at an address as an array that shares it; CudaError where it is not wholly in a live block."""
        return self.memory.view(pointer, shape, dtype)

    def inject(self, call: str, error: Exception, after: int = 0) -> None:
        """Makes the call numbered `after` from now (0: the next) of this name raise `error`, once."""
        self._injected.setdefault(call, []).append((after, error))

    def enqueue(self, stream: Any, function: Operation, name: str = "enqueue") -> None:
        """Puts a Python function on a stream, given as the object or by its handle; captured as anything else is."""
        self.begin_call(name)
        self.put(self._streams[stream] if isinstance(stream, int) else stream, name, function)

    @property
    def capturing(self) -> bool:
        """Whether this thread captures work now; other threads' calls go on meanwhile."""
        return self._capture is not None

    @property
    def _capture(self) -> Optional[HostCapture]:
        capture: Optional[HostCapture] = getattr(self._local, "capture", None)
        return capture

    # The protocol

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        if os.getpid() != self._pid:
            raise HostError("a CUDA context can't be used in a forked child", fix="open it in the child, or use spawn")
        if self.closed:
            raise CudaError("the context was closed")
        self._local.depth = getattr(self._local, "depth", 0) + 1
        try:
            yield
        finally:
            self._local.depth -= 1

    def allocate(self, nbytes: int, purpose: str) -> HostBlock:
        self.begin_call("allocate", capturable=False)
        if nbytes < 1:
            raise CudaError(f"memory for {purpose}", expected="at least 1 byte", got=nbytes)
        free, total = self._free_and_total()
        if nbytes > free:
            raise OutOfDeviceMemoryError(
                f"the GPU has no room for {purpose}",
                expected=f"{nbytes:,} bytes in one block",
                got=f"{free:,} of {total:,} bytes free",
                why=f"this process holds {self._ledger.in_words()}",
            )
        block = self.memory.add(nbytes, purpose)
        self._ledger.add(purpose, nbytes)
        return HostBlock(self, block.pointer, nbytes, purpose)

    def release(self, block: HostBlock) -> None:
        """Frees a block, after all work that is under way, as cuMemFree does."""
        if self.closed:
            return
        self._refuse_capture("free")
        if self._sticky is None:
            for stream in self._streams.values():
                stream.drain()
        self._ledger.remove(block.purpose, block.nbytes)
        self.memory.remove(block.pointer)

    def pinned(self, shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
        self.begin_call("pinned", capturable=False)
        nbytes = int(np.prod(tuple(shape), dtype=np.int64)) * np.dtype(dtype).itemsize
        block = self.memory.add(max(nbytes, 1), PINNED, pinned=True)
        self._ledger.add(PINNED, max(nbytes, 1))
        return self.view(block.pointer, shape, dtype)

    def stream(self, priority: str = "normal") -> HostStream:
        self.begin_call("stream", capturable=False)
        if priority not in PRIORITIES:
            raise CudaError("a stream's priority", expected=" or ".join(PRIORITIES), got=priority)
        stream = HostStream(self, 0x5000 + len(self._streams), priority)
        self._streams[stream.handle] = stream
        return stream

    def event(self) -> HostEvent:
        self.begin_call("event")
        return HostEvent(self)

    def copy(self, destination: int, source: int, nbytes: int, stream: HostStream) -> None:
        self.begin_call("copy")
        self._copy(destination, nbytes, source, nbytes, nbytes, 1, stream)

    def copy_rows(
        self,
        destination: int,
        destination_pitch: int,
        source: int,
        source_pitch: int,
        width: int,
        rows: int,
        stream: HostStream,
    ) -> None:
        self.begin_call("copy rows")
        self._copy(destination, destination_pitch, source, source_pitch, width, rows, stream)

    def _copy(
        self,
        destination: int,
        destination_pitch: int,
        source: int,
        source_pitch: int,
        width: int,
        rows: int,
        stream: HostStream,
    ) -> None:
        if min(destination_pitch, source_pitch) < width or width < 1 or rows < 1:
            raise CudaError(
                f"{rows} rows of {width} bytes, {source_pitch} apart, {destination_pitch} apart when copied"
            )
        into, out_of = (rows - 1) * destination_pitch + width, (rows - 1) * source_pitch + width
        if destination < source + out_of and source < destination + into:
            raise CudaError(f"a copy from {source:#x} to {destination:#x} overlaps itself")

        def run() -> None:
            self.memory.check(destination, into, "destination of a copy")
            self.memory.check(source, out_of, "source of a copy")
            shapes = (rows, width)
            to = np.lib.stride_tricks.as_strided(self.view(destination, into, np.uint8), shapes, (destination_pitch, 1))
            of = np.lib.stride_tricks.as_strided(self.view(source, out_of, np.uint8), shapes, (source_pitch, 1))
            to[...] = of
            self.copied_bytes += rows * width

        self.memory.check(destination, into, "destination of a copy")
        self.memory.check(source, out_of, "source of a copy")
        self.put(stream, "copy", run)

    def zero(self, pointer: int, nbytes: int, stream: HostStream) -> None:
        self.begin_call("zero")

        def run() -> None:
            self.memory.check(pointer, nbytes, "zeros", device_only=True)
            self.view(pointer, nbytes, np.uint8)[:] = 0

        self.memory.check(pointer, nbytes, "zeros", device_only=True)
        self.put(stream, "zero", run)

    def wait_for_producer(self, stream: HostStream, producer: int) -> None:
        """The legacy stream (1) and the thread's (2) hold nothing here; other handles are those of our streams."""
        self.begin_call("wait for producer", capturable=False)
        self.counts["wait for producer"] += 1
        if producer not in (1, 2):
            event = HostEvent(self)
            self.record(event, self._streams[producer])
            self.wait_for(stream, event)

    def kernel(self, image: bytes, name: str) -> HostKernel:
        if (image, name) not in self._modules:
            self.begin_call("kernel", capturable=False)
            if name not in self.kernels:
                raise CudaError(f"the module has no kernel {name!r}", expected=", ".join(sorted(self.kernels)))
            self._modules.add((image, name))
        return HostKernel(name, self.kernels[name])

    def launch(
        self,
        kernel: HostKernel,
        grid: Any,
        block: Any,
        arguments: Sequence[Any],
        stream: HostStream,
        shared_bytes: int = 0,
    ) -> None:
        self.begin_call("launch")
        wrong = [type(argument).__name__ for argument in arguments if not isinstance(argument, np.number)]
        if wrong:
            raise CudaError(f"kernel {kernel.name!r}", expected="numpy numbers as arguments", got=", ".join(wrong))
        grid, block, arguments = _three(grid), _three(block), tuple(arguments)
        if int(np.prod(block)) > 1024 or min(*grid, *block) < 1:
            raise CudaError(f"kernel {kernel.name!r} can't be launched", got=f"grid {grid}, block {block}")
        self.put(stream, "launch", lambda: kernel.function(self, grid, block, *arguments))

    def capture(self, stream: HostStream, enqueue: Callable[[], None]) -> HostGraph:
        self.begin_call("capture", capturable=False)
        capture = self._local.capture = HostCapture(stream)
        try:
            # In turn with those of other threads, as GraphCapture does it
            with CAPTURES:
                enqueue()
        finally:
            self._local.capture = None
        if capture.refusal is not None:
            raise CaptureError(f"the capture was lost: {capture.refusal}")
        if capture.unjoined:
            raise CaptureError("a stream that took part in a capture was not joined to the one that is captured")
        if not capture.operations:
            raise CaptureError("nothing was captured")
        graph = HostGraph(self, capture.operations)
        self.graphs.add(graph)
        return graph

    def memory_info(self) -> tuple[int, int]:
        self.begin_call("memory info")
        return self._free_and_total()

    def _free_and_total(self) -> tuple[int, int]:
        held = sum(nbytes for purpose, nbytes in self._ledger.as_dict().items() if purpose != PINNED)
        return self.facts.total_memory_bytes - held, self.facts.total_memory_bytes

    @property
    def ledger(self) -> dict[str, int]:
        return self._ledger.as_dict()

    def close(self) -> None:
        if self.closed:
            return
        if self._sticky is None:
            for stream in self._streams.values():
                stream.drain()
        self.closed = True
        self.graphs.clear()
        self._ledger.clear()
        self.memory.check_canaries()

    # How calls run

    def begin_call(self, name: str, capturable: bool = True) -> None:
        """What every call checks first: the context, errors that stay, errors to inject, captures."""
        if self.closed:
            raise CudaError(f"{name}: the context was closed")
        if getattr(self._local, "depth", 0) < 1:
            raise CudaError(
                f"{name}: no context is current in this thread", fix="call it inside `with cuda.current():`"
            )
        if self._sticky is not None:
            raise self._sticky
        waiting = self._injected.get(name, [])
        due = [error for after, error in waiting if after == 0]
        self._injected[name] = [(after - 1, error) for after, error in waiting if after > 0]
        if due:
            self._sticky = due[0] if isinstance(due[0], StickyCudaError) else None
            raise due[0]
        if not capturable:
            self._refuse_capture(name)

    def _refuse_capture(self, name: str) -> None:
        if self._capture is not None:
            self._capture.refusal = f"{name} while work is captured"
            raise CaptureError(f"{name} can't be captured in a CUDA graph", fix="do it before the capture")

    def put(self, stream: HostStream, name: str, run: Operation) -> None:
        """Captures, defers or runs one operation."""

        def counted() -> None:
            self.counts[name] += 1
            self._clock_ms += 1
            run()

        if self._capture is not None:
            self._capture.add(stream, counted)
        elif self._deferred:
            stream.pending.append(counted)
        else:
            counted()

    def record(self, event: HostEvent, stream: HostStream) -> None:
        """An event's point; while capturing, it only orders the streams that take part."""
        if self._capture is not None:
            self._capture.check(stream)
            event.captured_on = stream
            return
        event.stream, event.captured_on, event.asked = stream, None, event.asked + 1
        number = event.asked
        if self._deferred:
            stream.pending.append(lambda: event.reach(number, self._clock_ms))
        else:
            event.reach(number, self._clock_ms)

    def wait_for(self, stream: HostStream, event: HostEvent) -> None:
        """Work of `stream` after this comes after the event."""
        if self._capture is not None:
            self._capture.join(stream, event)
        elif self._deferred:
            recorded_on, number = event.stream, event.asked
            if recorded_on is not None:
                stream.pending.append(lambda: event.drain_to(recorded_on, number))


def _three(size: Any) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    x, y, z = (*sizes, 1, 1)[:3]
    return int(x), int(y), int(z)
