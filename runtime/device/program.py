"""The loop of one kind of request as enqueued work: all steps, branches, solver; one CUDA graph where that goes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Optional

from motedge.runtime.cuda import Cuda, CudaGraph, Stream
from motedge.runtime.cuda.errors import CaptureError
from motedge.runtime.device.branch import DeviceBranch
from motedge.runtime.device.step_solver import StepSolver

LOG = logging.getLogger(__name__)


class TickProgram:
    """Made for prompt lengths, schedule and guidance plan. What differs between ticks lies in the buffers.

    The first launch enqueues piece by piece: an engine must have run once before it is captured. The second captures,
    and from then on a tick is one launch. Where capture is refused it stays with the pieces; `refusal` says why.
    """

    def __init__(
        self,
        cuda: Cuda,
        solver: StepSolver,
        branches: Sequence[DeviceBranch],
        guided: Sequence[bool],
        *,
        refusal: Optional[str] = None,
    ) -> None:
        """Takes over solver and branches, and closes them.

        Args:
            cuda: where.
            solver: on the buffers that the branches are bound to.
            branches: the conditional one, and the unconditional one if any step is guided.
            guided: for each step, whether it takes both.
            refusal: why not to capture; None asks the engines.
        """
        self._cuda, self._solver, self._branches, self._guided = cuda, solver, tuple(branches), tuple(guided)
        reasons = [branch.capture_refusal for branch in branches]
        self.refusal: Optional[str] = next((reason for reason in (refusal, *reasons) if reason), None)
        self._warm = False
        self._graph: Optional[CudaGraph] = None

    @property
    def solver(self) -> StepSolver:
        """Holds the findings after a launch."""
        return self._solver

    @property
    def forwards(self) -> int:
        """Forwards of gen_step in one launch."""
        return len(self._guided) + sum(self._guided)

    @property
    def captured(self) -> bool:
        """Whether the next launch is one CUDA graph."""
        return self._graph is not None

    def launch(self, stream: Stream) -> None:
        """Enqueues the loop: from noise in the buffers to the denoised state."""
        if self._graph is None and self._warm and self.refusal is None:
            self._capture(stream)
        if self._graph is not None:
            self._graph.launch(stream)
            return
        self._enqueue(stream)
        self._warm = True

    def close(self) -> None:
        """Frees graph, branches and solver; harmless when repeated. Nothing of it may be running."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None
        for branch in self._branches:
            branch.close()
        self._solver.close()

    def _capture(self, stream: Stream) -> None:
        # The library may still be at work on the stream for its first run
        stream.synchronize()
        try:
            self._graph = self._cuda.capture(stream, lambda: self._enqueue(stream))
        except CaptureError as error:
            self.refusal = error.what + (f": {error.got}" if error.got else "")
            LOG.warning("the loop is launched piece by piece, it can't be captured: %s", self.refusal)

    def _enqueue(self, stream: Stream) -> None:
        self._solver.begin(stream)
        for k, guided in enumerate(self._guided):
            self._branches[0].enqueue(stream)
            if guided:
                self._branches[1].enqueue(stream)
            self._solver.step(k, guided, stream)
