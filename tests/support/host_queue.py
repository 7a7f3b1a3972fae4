"""What a simulated GPU hands out: blocks, streams, events, kernels, captures and graphs. See host_cuda.py."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Optional

from motedge.runtime.cuda.errors import CaptureError, CudaError

if TYPE_CHECKING:
    from host_cuda import HostCuda

Operation = Callable[[], None]
KernelFunction = Callable[..., None]


class HostBlock:
    """DeviceMemory of a HostCuda."""

    def __init__(self, cuda: HostCuda, pointer: int, nbytes: int, purpose: str) -> None:
        self._cuda, self.pointer, self.nbytes, self.purpose = cuda, pointer, nbytes, purpose
        self._live = True

    def free(self) -> None:
        if self._live:
            self._cuda.release(self)
            self._live = False


class HostStream:
    """A queue. `pending` is only ever filled while work is deferred."""

    def __init__(self, cuda: HostCuda, handle: int, priority: str) -> None:
        self._cuda, self.handle, self.priority = cuda, handle, priority
        self.pending: deque[Operation] = deque()
        # Whoever waits runs what is pending, one operation after the other, whichever threads wait
        self.running = threading.RLock()

    def synchronize(self) -> None:
        self._cuda.begin_call("synchronize", capturable=False)
        self.drain()

    def drain(self) -> None:
        with self.running:
            while self.pending:
                self.pending.popleft()()

    def wait(self, event: HostEvent) -> None:
        self._cuda.begin_call("wait")
        self._cuda.wait_for(self, event)


class HostEvent:
    """A point in a stream. Its clock counts operations, one a millisecond, so that elapsed times are exact."""

    def __init__(self, cuda: HostCuda) -> None:
        self._cuda = cuda
        self.stream: Optional[HostStream] = None
        self.asked, self.reached = 0, 0
        self.captured_on: Optional[HostStream] = None
        self._time_ms = 0

    def record(self, stream: HostStream) -> None:
        self._cuda.begin_call("record")
        self._cuda.record(self, stream)

    def reach(self, number: int, time_ms: int) -> None:
        self.reached, self._time_ms = max(self.reached, number), time_ms

    def synchronize(self) -> None:
        self._cuda.begin_call("event synchronize", capturable=False)
        self.drain()

    def drain(self) -> None:
        if self.stream is not None:
            self.drain_to(self.stream, self.asked)

    def drain_to(self, stream: HostStream, number: int) -> None:
        """Runs a stream's work up to the event's record of that number."""
        with stream.running:
            while self.reached < number:
                stream.pending.popleft()()

    @property
    def passed(self) -> bool:
        """Each question lets deferred work get one operation further, so that whoever polls comes to an end."""
        self._cuda.begin_call("event query", capturable=False)
        passed = self.reached >= self.asked
        if not passed and self.stream is not None:
            with self.stream.running:
                if self.stream.pending:
                    self.stream.pending.popleft()()
        return passed

    def elapsed_ms(self, start: HostEvent) -> float:
        self._cuda.begin_call("event elapsed", capturable=False)
        for event in (start, self):
            if event.stream is None or event.reached < event.asked:
                raise CudaError("the time between two events", expected="both recorded and passed", got="one is not")
        return float(self._time_ms - start._time_ms)


class HostKernel:
    """A Python function by the name of a kernel."""

    def __init__(self, name: str, function: KernelFunction) -> None:
        self.name, self.function = name, function


class HostGraph:
    """Operations in the order in which they were captured."""

    def __init__(self, cuda: HostCuda, operations: Sequence[Operation]) -> None:
        self._cuda, self.operations = cuda, tuple(operations)
        self.closed = False

    def launch(self, stream: HostStream) -> None:
        self._cuda.begin_call("graph launch")
        if self.closed:
            raise CudaError("a CUDA graph was launched after it had been closed")
        self._cuda.put(stream, "graph launch", self._run)

    def _run(self) -> None:
        for operation in self.operations:
            operation()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._cuda.graphs.discard(self)


class HostCapture:
    """Operations under capture, and the streams that take part."""

    def __init__(self, origin: HostStream) -> None:
        self.origin, self.operations = origin, list[Operation]()
        self.streams, self.unjoined = {origin}, set[HostStream]()
        self.refusal: Optional[str] = None

    def check(self, stream: HostStream) -> None:
        if stream not in self.streams:
            self.refusal = f"work on stream {stream.handle:#x}, which takes no part in it"
            raise CaptureError("work on another stream while one is captured", fix="join it by an event")

    def add(self, stream: HostStream, run: Operation) -> None:
        self.check(stream)
        if stream is not self.origin:
            self.unjoined.add(stream)
        self.operations.append(run)

    def join(self, stream: HostStream, event: HostEvent) -> None:
        if event.captured_on is None:
            self.refusal = "a wait for an event that was not recorded in it"
            raise CaptureError("an event from outside a capture can't be waited for in it")
        if stream is self.origin:
            self.unjoined.discard(event.captured_on)
        else:
            self.streams.add(stream)
            self.unjoined.add(stream)
