"""Work that is enqueued piece by piece once, and replayed as one CUDA graph from then on, where that goes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Optional

from motedge.runtime.cuda import Cuda, CudaGraph, Stream
from motedge.runtime.cuda.errors import CaptureError, EngineError, OutOfDeviceMemoryError

LOG = logging.getLogger(__name__)


class Captured:
    """The first launch enqueues the pieces: an engine must have run once before it is captured. The second captures.

    Where capture is refused or fails it stays with the pieces; `refusal` says why. What is really broken fails again
    then, without a capture, and is raised.
    """

    def __init__(self, cuda: Cuda, what: str, enqueue: Callable[[Stream], None], refusal: Optional[str] = None) -> None:
        """`what` names the work in the log; `refusal`: why not to try; None: try."""
        self._cuda, self._what, self._enqueue, self.refusal = cuda, what, enqueue, refusal
        self._warm = False
        self._graph: Optional[CudaGraph] = None

    @property
    def captured(self) -> bool:
        """Whether the next launch is one CUDA graph."""
        return self._graph is not None

    @property
    def ready(self) -> bool:
        """Whether the next launch is as every later one: a graph, or pieces for good."""
        return self._graph is not None or (self._warm and self.refusal is not None)

    def make_ready(self, stream: Stream) -> None:
        """Captures, where all the pieces have run by other ways; the work itself does not run."""
        self._warm = True
        if self._graph is None and self.refusal is None:
            self._capture(stream)

    def launch(self, stream: Stream) -> None:
        """Enqueues the work."""
        if self._graph is None and self._warm and self.refusal is None:
            self._capture(stream)
        if self._graph is not None:
            self._graph.launch(stream)
            return
        self._enqueue(stream)
        self._warm = True

    def close(self) -> None:
        """Frees the graph; harmless when repeated."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _capture(self, stream: Stream) -> None:
        # The library may still be at work on the stream for its first run
        stream.synchronize()
        try:
            self._graph = self._cuda.capture(stream, lambda: self._enqueue(stream))
        except (CaptureError, EngineError, OutOfDeviceMemoryError) as error:
            # Libraries tell a refusal to be captured as they tell any failure
            self.refusal = error.what + (f": {error.got}" if error.got else "")
            LOG.warning("%s is launched piece by piece, it can't be captured: %s", self._what, self.refusal)
