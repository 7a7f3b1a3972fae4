"""Capture and replay through cuda-bindings, whichever provider the captured stream is from."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from motedge.runtime.cuda.driver import Driver
from motedge.runtime.cuda.errors import CaptureError, CudaError, OutOfDeviceMemoryError, StickyCudaError
from motedge.runtime.fair_lock import FairLock

# Held while anything is captured, and by whoever works on the GPU in another thread beside requests: an engine library
# may wait for the whole device when it makes a context, which ends every capture on it. Taken after a policy's own lock
CAPTURES = FairLock()


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
        with CAPTURES:
            graph = self._uncollected(stream, enqueue)
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

    def _uncollected(self, stream: int, enqueue: Callable[[], None]) -> int:
        collecting = gc.isenabled()
        # A tensor of somebody else's that is collected now would free its memory, which ends a capture
        gc.disable()
        try:
            return self._captured(stream, enqueue)
        finally:
            if collecting:
                gc.enable()

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
