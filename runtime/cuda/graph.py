"""Capture and replay through cuda-bindings, whichever provider the captured stream is from."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

from motedge.runtime.cuda.driver import Driver
from motedge.runtime.cuda.errors import CaptureError, CudaError, OutOfDeviceMemoryError, StickyCudaError


class GraphCapture:
    """Makes executable graphs. Handles are integers; the context must be current."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        # Calls of other threads may go on meanwhile; unsafe ones of this thread end the capture
        self._mode = driver.api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        """Captures what `enqueue` puts on the stream, and returns the CUgraphExec.

        Raises:
            CaptureError: something can't be captured, or nothing was. The stream is usable afterwards.
        """
        # A tensor of somebody else's that is collected now would free its memory, which ends a capture
        with _NO_COLLECTION.held():
            graph = self._captured(stream, enqueue)
        try:
            return self._instantiated(graph)
        finally:
            self._driver.call("cuGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Enqueues an executable graph."""
        self._driver.call("cuGraphLaunch", graph, stream, what="a CUDA graph can't be launched")

    def destroy(self, graph: int) -> None:
        """Frees an executable graph."""
        self._driver.call("cuGraphExecDestroy", graph)

    def _captured(self, stream: int, enqueue: Callable[[], None]) -> int:
        self._call("cuStreamBeginCapture", stream, self._mode)
        try:
            enqueue()
        except BaseException:
            self._abandon(stream)
            raise
        graph = int(self._call("cuStreamEndCapture", stream))
        if graph == 0:
            raise CaptureError("the capture was lost", why="a call in it could not be captured")
        return graph

    def _abandon(self, stream: int) -> None:
        """Ends a capture whose graph nobody wants. What was lost by the error shows in EndCapture's result too."""
        result = self._driver.attempt("cuStreamEndCapture", stream)
        if result[0] == 0 and int(result[1]) != 0:
            self._driver.call("cuGraphDestroy", result[1])

    def _instantiated(self, graph: int) -> int:
        nodes = self._call("cuGraphGetNodes", graph, 0)
        if int(nodes[-1]) == 0:
            raise CaptureError("nothing was captured", why="the work went to another stream, or there was none")
        return int(self._call("cuGraphInstantiate", graph, 0))

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return self._driver.call(name, *arguments)
        except (CaptureError, OutOfDeviceMemoryError, StickyCudaError):
            raise
        except CudaError as error:
            what = f"work can't be captured in a CUDA graph: {name} failed"
            raise CaptureError(what, got=error.got, why=error.why, fix=error.fix) from error


class _NoCollection:
    """Keeps Python from collecting garbage while any thread captures: the switch is the process's."""

    def __init__(self) -> None:
        self._lock, self._held, self._collecting = threading.Lock(), 0, False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            if not self._held:
                self._collecting = gc.isenabled()
                gc.disable()
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1
                if not self._held and self._collecting:
                    gc.enable()


_NO_COLLECTION = _NoCollection()
