"""The denoising loop: prompt K/V, noise, forwards of both CFG branches, solver. numpy on the host, engines below."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Optional

from motedge.runtime.account import LoopAccount
from motedge.runtime.branch import GenBranch
from motedge.runtime.engine import Engine, IntArray
from motedge.runtime.gen_state import GenState
from motedge.runtime.host_solvers import HostSolvers
from motedge.runtime.host_steps import HostSteps
from motedge.runtime.noise import NoiseAhead
from motedge.runtime.prompt_cache import PromptCache
from motedge.runtime.prompt_encoder import PromptEncoder
from motedge.runtime.request import (
    GenInputs,
    GenResult,
    LoopCounters,
    LoopTimings,
    SamplerSettings,
    StepTiming,
)
from motedge.runtime.request_plan import check_request, gen_dims, gen_layout, prompts_of
from motedge.runtime.rope import RotaryTable
from motedge.runtime.spans import span
from motedge.runtime.step_view import StepWatch
from motedge.runtime.tables import Tables

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
        self._solvers = HostSolvers()

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
        with span("bind"):
            state.reset(inputs, noise)
            for branch, kv, angles in zip(self._branches, und_kv, rotary):
                branch.bind(gen_dims(inputs, kv.shape[3], self._patch), state, angles, kv, weights)
        solver = self._solvers.take(schedule, state, inputs.seed)
        steps = HostSteps(inputs, settings, schedule, state, solver, self._branches).run(watch)
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

    def _buffers(self, inputs: GenInputs) -> GenState:
        width = self._gen.contract.sizes["Q"] if inputs.sound_latents else 0
        shapes = inputs.vision_clean.shape, inputs.action_clean.shape, (width, inputs.sound_latents)
        if self._state is None or self._state.shapes != shapes:
            self._state = GenState(*shapes)
        return self._state
