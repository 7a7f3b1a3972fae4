"""What advances the state on the device: guidance, UniPC, clean positions and the next timestep, behind one interface.

numpy's `motedge.runtime.unipc.UniPC` with `motedge.runtime.guidance.combine` and `GenState.hold_clean` is the
reference for every implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Protocol

from motedge.runtime.cuda import Stream

# Bits of a step's finding
COND_NOT_FINITE, UNCOND_NOT_FINITE = 1, 2


@dataclass(frozen=True)
class SolverBuffers:
    """Device addresses of what the solver shares with the engines and the host; all flat vectors as in StateLayout."""

    # fp32 [noise_count], read by `begin`
    noise: int
    # fp32 [size], x_k: the engines' input
    state: int
    # fp32 [size] each, the engines' output
    v_cond: int
    v_uncond: int
    # fp32 [size], values of the clean positions; elsewhere not read
    clean: int
    # fp32 [T] and [A]: 1 noisy, 0 clean
    vision_noisy: int
    action_noisy: int
    # fp32 [1], the timestep that the engines read, 0..1000
    t: int
    # uint32 [steps]: bits of what was not finite in the velocities of each step; zeroed by `begin`
    findings: int


class StepSolver(Protocol):
    """One schedule on one set of buffers. Enqueues only: can be captured, and replayed with other buffer contents."""

    @property
    def kind(self) -> str:
        """ "kernel" or "graph"."""
        ...

    @property
    def capture_refusal(self) -> Optional[str]:
        """Why it can't be captured; None where it can."""
        ...

    def begin(self, stream: Stream) -> None:
        """state = noise, clean positions and unused channels filled in; t of step 0; findings and gaps zeroed."""
        ...

    def step(self, k: int, guided: bool, stream: Stream) -> None:
        """State of step k -> k + 1, from v_cond and, where `guided`, v_uncond; t of step k + 1; the step's finding."""
        ...

    def fetch_findings(self, stream: Stream) -> None:
        """Enqueues the download of the findings."""
        ...

    def findings(self) -> Sequence[int]:
        """The bits of each step, after `fetch_findings` and once the stream has been waited for."""
        ...

    def follow_workspace(self) -> None:
        """Takes the shared workspace where it lies now; nothing may be running on it."""
        ...

    def close(self) -> None:
        """Frees its own memory; harmless when repeated."""
        ...
