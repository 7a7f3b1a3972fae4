"""The loop of one kind of request as enqueued work: all steps, branches, solver; one CUDA graph where that goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional

from motedge.runtime.cuda import Cuda, Event, Stream
from motedge.runtime.device.branch import DeviceBranch
from motedge.runtime.device.captured import Captured
from motedge.runtime.device.step_solver import StepSolver
from motedge.runtime.spans import device_span


class TickProgram:
    """Made for prompt lengths, schedule and guidance plan. What differs between ticks lies in the buffers."""

    def __init__(
        self,
        cuda: Cuda,
        solver: StepSolver,
        branches: Sequence[DeviceBranch],
        guided: Sequence[bool],
        *,
        computed: Optional[Sequence[tuple[bool, bool]]] = None,
        refusal: Optional[str] = None,
        timed: bool = False,
    ) -> None:
        """Takes over solver and branches, and closes them.

        Args:
            cuda: where.
            solver: on the buffers that the branches are bound to.
            branches: the conditional one, and the unconditional one if any step is guided.
            guided: for each step, whether it takes both.
            computed: for each step, which of the two forwards run; the velocities of the others stay as they lie in the
                buffers. None: all that are taken.
            refusal: why not to capture; None asks the engines.
            timed: whether each piece is timed by the GPU's clock; it is then never captured.
        """
        self._pieces: list[str] = []
        self._marks: list[Event] = []
        self._solver, self._branches, self._guided = solver, tuple(branches), tuple(guided)
        self._computed = tuple((True, both) for both in guided) if computed is None else tuple(computed)
        if timed:
            self._pieces = self._named()
            self._marks = [cuda.event() for _ in range(len(self._pieces) + 1)]
            refusal = "each step is timed"
        reasons = (refusal, solver.capture_refusal, *(branch.capture_refusal for branch in branches))
        self._work = Captured(cuda, "the loop", self._enqueue, next((reason for reason in reasons if reason), None))

    @property
    def solver(self) -> StepSolver:
        """Holds the findings after a launch."""
        return self._solver

    @property
    def forwards(self) -> int:
        """Forwards of gen_step in one launch."""
        return sum(map(sum, self._computed))

    @property
    def reused(self) -> int:
        """Forwards left out in one launch."""
        return len(self._guided) + sum(self._guided) - self.forwards

    @property
    def computed(self) -> tuple[tuple[bool, bool], ...]:
        """For each step, whether the conditional and the unconditional forward run."""
        return self._computed

    @property
    def guided(self) -> tuple[bool, ...]:
        """For each step, whether it takes both velocities."""
        return self._guided

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

    def tell_times(self) -> None:
        """Tells the spans of the last launch, which is over; nothing where they are not timed."""
        for name, start, end in zip(self._pieces, self._marks, self._marks[1:]):
            last = self._marks[-1]
            device_span(name, -last.elapsed_ms(start), -last.elapsed_ms(end))

    def rehearse(self, stream: Stream) -> Iterator[None]:
        """Makes the next launch as every later one, without running the loop: each branch and the solver's steps run
        once, then the loop is captured. A step for each, which is waited for.

        State and velocities are lost. Nothing of a request may be under way; between two steps a whole one may run.
        """
        if self._work.ready:
            return
        # What a library captures by itself it does in the second run
        for _ in range(1 if self.refusal is None else 2):
            for branch in self._branches:
                self._solver.begin(stream)
                branch.enqueue(stream)
                stream.synchronize()
                yield
            for k, guided in enumerate(self._guided):
                self._solver.step(k, guided, stream)
            stream.synchronize()
        self._work.make_ready(stream)
        yield

    def enqueue_forward(self, k: int, branch: int, stream: Stream) -> None:
        """A forward of step k, if it is one that runs: for steps that are launched one by one."""
        if self._computed[k][branch]:
            self._branches[branch].enqueue(stream)

    def follow_workspace(self) -> None:
        """Takes the shared workspace where it lies now, for steps that are launched one by one."""
        self._solver.follow_workspace()
        for branch in self._branches:
            branch.follow_workspace()

    def close(self) -> None:
        """Frees graph, branches and solver; harmless when repeated. Nothing of it may be running."""
        self._work.close()
        for branch in self._branches:
            branch.close()
        self._solver.close()

    def _enqueue(self, stream: Stream) -> None:
        marks = iter(self._marks)
        self._solver.begin(stream)
        _mark(marks, stream)
        for k, (guided, computed) in enumerate(zip(self._guided, self._computed)):
            for branch, runs in enumerate(computed):
                self.enqueue_forward(k, branch, stream)
                if runs:
                    _mark(marks, stream)
            self._solver.step(k, guided, stream)
            _mark(marks, stream)

    def _named(self) -> list[str]:
        """What is enqueued behind the solver's start, in order."""
        found = []
        for k, computed in enumerate(self._computed):
            found += [f"step {k} {part}" for part, runs in zip(("cond", "uncond"), computed) if runs]
            found.append(f"step {k} solver")
        return found


def _mark(marks: Iterator[Event], stream: Stream) -> None:
    mark = next(marks, None)
    if mark is not None:
        mark.record(stream)
