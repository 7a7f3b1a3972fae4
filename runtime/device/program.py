"""The loop of one kind of request as enqueued work: all steps, branches, solver; one CUDA graph where that goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.device.branch import DeviceBranch
from motedge.runtime.device.captured import Captured
from motedge.runtime.device.step_solver import StepSolver


class TickProgram:
    """Made for prompt lengths, schedule and guidance plan. What differs between ticks lies in the buffers."""

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
        self._solver, self._branches, self._guided = solver, tuple(branches), tuple(guided)
        reasons = (refusal, solver.capture_refusal, *(branch.capture_refusal for branch in branches))
        self._work = Captured(cuda, "the loop", self._enqueue, next((reason for reason in reasons if reason), None))

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
        return self._work.captured

    @property
    def refusal(self) -> Optional[str]:
        """Why it is not captured; None where it is, or will be."""
        return self._work.refusal

    def launch(self, stream: Stream) -> None:
        """Enqueues the loop: from noise in the buffers to the denoised state."""
        self._work.launch(stream)

    def close(self) -> None:
        """Frees graph, branches and solver; harmless when repeated. Nothing of it may be running."""
        self._work.close()
        for branch in self._branches:
            branch.close()
        self._solver.close()

    def _enqueue(self, stream: Stream) -> None:
        self._solver.begin(stream)
        for k, guided in enumerate(self._guided):
            self._branches[0].enqueue(stream)
            if guided:
                self._branches[1].enqueue(stream)
            self._solver.step(k, guided, stream)
