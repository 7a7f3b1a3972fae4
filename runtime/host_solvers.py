"""Solvers in numpy, by schedule; the buffers of the last one are used again."""

from __future__ import annotations

from typing import Optional, Protocol

from motedge.runtime.distilled import DistilledSchedule, StochasticEuler
from motedge.runtime.engine import FloatArray
from motedge.runtime.gen_state import GenState
from motedge.runtime.request import Schedule
from motedge.runtime.unipc import UniPC
from motedge.runtime.unipc_coefficients import UniPCCoefficients


class HostSolver(Protocol):
    """Moves the flat state from one noise level to the next, in place."""

    def step(self, k: int, state: FloatArray, velocity: FloatArray) -> None:
        """State of step k -> k + 1; both fp32, flat, contiguous."""
        ...


class HostSolvers:
    """Makes them. UniPC's is kept while schedule and size stay."""

    def __init__(self) -> None:
        self._kept: Optional[tuple[object, UniPC]] = None

    def take(self, schedule: Schedule, state: GenState, seed: int) -> HostSolver:
        """A solver at its first step; `seed`: of the request."""
        if isinstance(schedule, DistilledSchedule):
            return StochasticEuler(schedule, state.counts, seed)
        key = schedule, state.size
        if self._kept is None or self._kept[0] != key:
            self._kept = key, UniPC(UniPCCoefficients.from_schedule(schedule), state.size)
        solver = self._kept[1]
        solver.reset()
        return solver
