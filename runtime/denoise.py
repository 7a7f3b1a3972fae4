"""The denoising loop: prompt K/V, noise, forwards of both CFG branches, solver. numpy on the host, engines below."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, Optional, Union

from motedge.runtime.account import LoopAccount
from motedge.runtime.branch import GenBranch
from motedge.runtime.distilled import DistilledSchedule, StochasticEuler
from motedge.runtime.engine import Engine, IntArray
from motedge.runtime.gen_state import GenState
from motedge.runtime.guidance import GuidancePlan, combine
from motedge.runtime.noise import NoiseAhead
from motedge.runtime.prompt_cache import PromptCache
from motedge.runtime.prompt_encoder import PromptEncoder
from motedge.runtime.request import (
    GenInputs,
    GenResult,
    LoopCounters,
    LoopTimings,
    SamplerSettings,
    Schedule,
    StepTiming,
)
from motedge.runtime.request_plan import check_request, gen_dims, gen_layout, prompts_of
from motedge.runtime.rope import RotaryTable
from motedge.runtime.step_cache.velocities import VelocitySource, velocity_sources
from motedge.runtime.step_view import StepView, StepWatch
from motedge.runtime.tables import Tables
from motedge.runtime.unipc import UniPC
from motedge.runtime.unipc_coefficients import UniPCCoefficients

__all__ = ["DenoiseLoop", "GenInputs", "GenResult", "LoopCounters", "LoopTimings", "SamplerSettings", "StepTiming"]

# Rotary tables kept: both branches of four prompt lengths; 1.6 MB each at the size of the DROID policy
_ROTARY_ENTRIES = 8


class DenoiseLoop:
    """Runs requests on one pair of engines; keeps across runs what does not change. Not for two threads at once.

    Kept: K and V of prompts, rotary tables, contexts, buffers, the embodiment's weights, the solver's table. A tick
    in which only the image, the state and the seed differ costs no prefill and makes nothing anew.

    Args:
        und: engine of und_prefill.
        gen: engine of gen_step, or of gen_step_sound for requests with sound.
        tables: the bundle's tables.
        model_config: transformer/config.json (`manifest.model["config"]`).
        prompt_cache: where prompts are kept; by default the last 8.
        noise: draws the noise ahead, if it knows the next seed; by default it is drawn when needed.
    """

    def __init__(
        self,
        und: Engine,
        gen: Engine,
        tables: Tables,
        model_config: Mapping[str, Any],
        *,
        prompt_cache: Optional[PromptCache] = None,
        noise: Optional[NoiseAhead] = None,
    ) -> None:
        self._gen = gen
        self._noise = NoiseAhead() if noise is None else noise
        self._patch = int(model_config.get("latent_patch_size", 2))
        rotary = RotaryTable(tables.inv_freq(), model_config)
        self._rotary = functools.lru_cache(maxsize=_ROTARY_ENTRIES)(rotary.generator)
        self._weights = functools.lru_cache(maxsize=4)(tables.embodiment_weights)
        cache = PromptCache() if prompt_cache is None else prompt_cache
        self._prompts = PromptEncoder(und, tables, rotary, cache, gen.dtype)
        self._branches = (GenBranch("conditional", gen), GenBranch("unconditional", gen))
        self._state: Optional[GenState] = None
        self._solver: Optional[UniPC] = None
        self._solver_key: tuple[object, ...] = ()

    @property
    def prompts(self) -> PromptCache:
        """The prompts kept, with hits and misses over the loop's life."""
        return self._prompts.cache

    def run(self, inputs: GenInputs, settings: SamplerSettings, watch: Optional[StepWatch] = None) -> GenResult:
        """Denoises one request; `watch` is called at each step.

        Raises:
            ContractError: shapes, token ids or lengths that the graphs don't take.
            UsageError: guidance is active and there are no uncond_tokens; an unknown domain.
            NonFiniteError: a graph returned NaN or infinity; names the graph, the step and the branch.
        """
        account = LoopAccount(self._prompts.cache, self._rotary)
        schedule, plan = settings.schedule(), settings.guidance_plan()
        prompts = prompts_of(inputs, plan, schedule)
        check_request(inputs, prompts, self._gen.contract)
        weights = self._weights(inputs.domain_id, inputs.raw_dim)
        und_kv = account.time("prefill", lambda: [self._prompts.encode(tokens) for tokens in prompts])
        rotary = account.time("rope", lambda: [self._rotary(gen_layout(inputs, tokens.size)) for tokens in prompts])
        state = self._buffers(inputs)
        noise, account.noise_ahead = account.time("noise", lambda: self._noise.take(inputs.seed, state.noise_count))
        state.reset(inputs, noise)
        for branch, kv, angles in zip(self._branches, und_kv, rotary):
            branch.bind(gen_dims(inputs, kv.shape[3], self._patch), state, angles, kv, weights)
        solver = self._solver_for(schedule, state, inputs.seed)
        times = schedule.timesteps.tolist()
        guided = [plan.active(t) for t in times]
        moves = bool(inputs.vision_noisy.any())
        sources = velocity_sources(settings.step_cache, self._branches, state.vision, moves, times, guided)

        def show(k: int) -> None:
            if watch is not None:
                watch(StepView(k, len(times), float(schedule.sigmas[k]), state.vision, state.vision_velocity))

        steps = tuple(self._step(k, t, solver, state, inputs, plan, sources, show) for k, t in enumerate(times))
        sound = state.sound.copy() if inputs.sound_latents else None
        timings, counters = account.timings(steps), account.counters(steps)
        return GenResult(state.vision.copy(), state.action.copy(), timings, counters, sound)

    def prepare(self, token_ids: IntArray) -> None:
        """Makes K and V of a prompt ready, so that the run that first uses it costs no prefill.

        Raises:
            ContractError: more or fewer tokens than the graph was exported for.
            NonFiniteError: the graph returned NaN or infinity.
        """
        self._prompts.encode(token_ids)

    def close(self) -> None:
        """Stops the noise thread. The engines belong to the caller."""
        self._noise.close()

    def _step(
        self,
        k: int,
        t: float,
        solver: Union[UniPC, StochasticEuler],
        state: GenState,
        inputs: GenInputs,
        plan: GuidancePlan,
        sources: tuple[VelocitySource, VelocitySource],
        show: Callable[[int], None],
    ) -> StepTiming:
        """One denoising step: the state moves from noise level k to k + 1."""
        conditional, unconditional = sources
        state.t[0] = t
        marks, uncond_reused = [time.perf_counter()], False
        velocities = conditional.at(k)
        marks.append(time.perf_counter())
        if plan.active(t):
            others = unconditional.at(k)
            uncond_reused = unconditional.reused
            marks.append(time.perf_counter())
            for velocity, other, out in zip(velocities, others, state.velocities):
                combine(velocity, other, plan.scale, out=out)
        else:
            for velocity, out in zip(velocities, state.velocities):
                out[...] = velocity
        show(k)
        solver.step(k, state.flat, state.flat_velocity)
        state.hold_clean(inputs)
        marks.append(time.perf_counter())
        spans_ms = [1e3 * (after - before) for before, after in zip(marks, marks[1:])]
        uncond_ms = spans_ms[1] if len(spans_ms) == 3 else None
        return StepTiming(t, spans_ms[0], uncond_ms, spans_ms[-1], conditional.reused, uncond_reused)

    def _buffers(self, inputs: GenInputs) -> GenState:
        width = self._gen.contract.sizes["Q"] if inputs.sound_latents else 0
        shapes = inputs.vision_clean.shape, inputs.action_clean.shape, (width, inputs.sound_latents)
        if self._state is None or self._state.shapes != shapes:
            self._state = GenState(*shapes)
        return self._state

    def _solver_for(self, schedule: Schedule, state: GenState, seed: int) -> Union[UniPC, StochasticEuler]:
        if isinstance(schedule, DistilledSchedule):
            return StochasticEuler(schedule, state.counts, seed)
        key = (schedule, state.size)
        if self._solver is None or self._solver_key != key:
            self._solver, self._solver_key = UniPC(UniPCCoefficients.from_schedule(schedule), state.size), key
        self._solver.reset()
        return self._solver
