"""The denoising steps of one run in numpy: where velocities come from is the caller's, on the host or on a device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Optional

from motedge.runtime.gen_state import GenState
from motedge.runtime.guidance import GuidancePlan, guide
from motedge.runtime.host_solvers import HostSolver
from motedge.runtime.request import GenInputs, SamplerSettings, Schedule, StepTiming
from motedge.runtime.spans import span
from motedge.runtime.step_cache.velocities import Forward, velocity_sources
from motedge.runtime.step_view import StepView, StepWatch


class HostSteps:
    """Guidance, step cache, solver, clean positions."""

    def __init__(
        self,
        inputs: GenInputs,
        settings: SamplerSettings,
        schedule: Schedule,
        state: GenState,
        solver: HostSolver,
        branches: Sequence[Forward],
    ) -> None:
        """`schedule`: of `settings`; `state`: reset to the noise; `branches`: both, bound to it."""
        self._inputs, self._state, self._solver = inputs, state, solver
        self._plan: GuidancePlan = settings.guidance_plan()
        self._times, self._sigmas = schedule.timesteps.tolist(), schedule.sigmas
        guided = [self._plan.active(t) for t in self._times]
        moves = bool(inputs.vision_noisy.any())
        self._sources = velocity_sources(settings.step_cache, branches, state.vision, moves, self._times, guided)

    def run(self, watch: Optional[StepWatch] = None) -> tuple[StepTiming, ...]:
        """All steps: the state is denoised then.

        Raises:
            NonFiniteError: a forward returned NaN or infinity.
        """
        return tuple(self._step(k, t, watch) for k, t in enumerate(self._times))

    def _step(self, k: int, t: float, watch: Optional[StepWatch]) -> StepTiming:
        """One denoising step: the state moves from noise level k to k + 1."""
        state, (conditional, unconditional) = self._state, self._sources
        state.t[0] = t
        marks, uncond_reused = [time.perf_counter()], False
        with span(f"step {k} cond"):
            velocities, others = conditional.at(k), None
        marks.append(time.perf_counter())
        if self._plan.active(t):
            with span(f"step {k} uncond"):
                others = unconditional.at(k)
            uncond_reused = unconditional.reused
            marks.append(time.perf_counter())
        with span(f"step {k} solver"):
            guide(velocities, others, self._plan.scale, state.velocities)
            if watch is not None:
                watch(StepView(k, len(self._times), float(self._sigmas[k]), state.vision, state.vision_velocity))
            self._solver.step(k, state.flat, state.flat_velocity)
            state.hold_clean(self._inputs)
        marks.append(time.perf_counter())
        spans_ms = [1e3 * (after - before) for before, after in zip(marks, marks[1:])]
        uncond_ms = spans_ms[1] if len(spans_ms) == 3 else None
        return StepTiming(t, spans_ms[0], uncond_ms, spans_ms[-1], conditional.reused, uncond_reused)
