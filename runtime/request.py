"""What goes into the denoising loop and what comes out: settings, one request, the result with its accounts."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np

from motedge.errors import ContractError, UsageError
from motedge.runtime.distilled import DistilledSchedule, check_levels
from motedge.runtime.engine import FloatArray, IntArray
from motedge.runtime.guidance import GuidancePlan
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.step_cache.options import FixedCache, StepCache, parse_step_cache

Schedule = Union[FlowSchedule, DistilledSchedule]


@dataclass(frozen=True)
class SamplerSettings:
    """How the loop samples. Defaults: NVIDIA's DROID policy server for Edge."""

    # Denoising steps; each is one forward, or two where guidance is active
    steps: int = 4
    # Flow shift of the sigma schedule
    shift: float = 5.0
    # Classifier-free guidance scale; 1 means a single forward per step
    guidance: float = 3.0
    # Guidance is active only where lo < t < hi (t in 0..1000); None: at every step
    guidance_interval: Optional[tuple[float, float]] = None
    # Which forwards are left out; also as text, see `motedge.runtime.step_cache.options`. None: none
    step_cache: Optional[StepCache] = None
    # Noise levels of a distilled model, which samples with fresh noise at them; steps is their number, shift 1 and
    # guidance 1. None: UniPC on the flow schedule
    distilled_sigmas: Optional[tuple[float, ...]] = None

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or not 1 <= self.steps <= 1000:
            raise UsageError("the number of denoising steps is wrong", expected="1 to 1000", got=self.steps)
        if not (math.isfinite(self.shift) and self.shift > 0):
            raise UsageError("the flow shift is wrong", expected="a finite number above 0", got=self.shift)
        if self.guidance_interval is not None:
            object.__setattr__(self, "guidance_interval", tuple(self.guidance_interval))
        self.guidance_plan()
        if isinstance(self.step_cache, str):
            object.__setattr__(self, "step_cache", parse_step_cache(self.step_cache))
        if self.step_cache is not None:
            self.step_cache.check(self.steps)
        if self.distilled_sigmas is not None:
            object.__setattr__(self, "distilled_sigmas", tuple(self.distilled_sigmas))
            self._check_distilled(tuple(self.distilled_sigmas))

    def guidance_plan(self) -> GuidancePlan:
        """At which steps guidance is active."""
        return GuidancePlan(self.guidance, self.guidance_interval)

    def schedule(self) -> Schedule:
        """The noise levels.

        Raises:
            UsageError: two of them are equal.
        """
        if self.distilled_sigmas is not None:
            return DistilledSchedule(self.distilled_sigmas)
        return FlowSchedule(self.steps, self.shift)

    def forwards(self) -> int:
        """Forwards of the generator; with SeaCache, which decides as it goes, the most that it can be."""
        guided = [self.guidance_plan().active(t) for t in self.schedule().timesteps.tolist()]
        if isinstance(self.step_cache, FixedCache):
            return sum(map(sum, self.step_cache.computed(guided)))
        return len(guided) + sum(guided)

    def _check_distilled(self, levels: tuple[float, ...]) -> None:
        check_levels(levels)
        for name, expected in (("steps", len(levels)), ("guidance", 1.0), ("shift", 1.0)):
            if getattr(self, name) != expected:
                raise UsageError(
                    f"{name} of a distilled model can't be chosen",
                    expected=f"{expected:g}",
                    got=getattr(self, name),
                    why="its few steps were trained for these noise levels, with guidance inside",
                )


@dataclass(frozen=True)
class GenInputs:
    """One request to the generator. Arrays are read, never written."""

    # fp32 [C, T, h, w], normalised latents; read only where vision_noisy is 0
    vision_clean: FloatArray
    # fp32 [T], 1 = to be generated, 0 = conditioning frame
    vision_noisy: FloatArray
    # fp32 [A, Z], zero beyond raw_dim; read only where action_noisy is 0
    action_clean: FloatArray
    # fp32 [A], 1 = to be generated, 0 = conditioning row (the robot's state)
    action_noisy: FloatArray
    # int64 [n], prompt of the conditional branch, special tokens included
    cond_tokens: IntArray
    # int64 [n], prompt of the unconditional branch; None only where guidance is never active
    uncond_tokens: Optional[IntArray]
    # Frames a second of the video
    fps: float
    # Row of the embodiment tables
    domain_id: int
    # Used channels of an action row
    raw_dim: int
    # Seed of the initial noise, 0 to 2**32 - 1
    seed: int
    # 0 when row 0 is the current state, 1 when row 0 is the first transition
    action_start_offset: int = 0
    # Actions a second; None: as fps
    fps_action: Optional[float] = None
    # Sound latents J to be generated, all of them; 0 where the graph takes no sound
    sound_latents: int = 0

    def __post_init__(self) -> None:
        _require("vision_clean", self.vision_clean, np.float32, 4)
        frames = self.vision_clean.shape[1]
        _require("vision_noisy", self.vision_noisy, np.float32, 1, frames)
        _require("action_clean", self.action_clean, np.float32, 2)
        rows, width = self.action_clean.shape
        _require("action_noisy", self.action_noisy, np.float32, 1, rows)
        _require("cond_tokens", self.cond_tokens, np.int64, 1)
        if self.uncond_tokens is not None:
            _require("uncond_tokens", self.uncond_tokens, np.int64, 1)
        for name in ("vision_noisy", "action_noisy"):
            if not np.isin(getattr(self, name), (0.0, 1.0)).all():
                raise ContractError(f"{name} is not a mask", expected="only 0 (clean) and 1 (noisy)")
        for name, rate in (("fps", self.fps), ("fps_action", self.fps_action)):
            if rate is not None and not (math.isfinite(rate) and rate > 0):
                raise UsageError(f"{name} is wrong", expected="a finite number above 0, in Hz", got=rate)
        if isinstance(self.sound_latents, bool) or not isinstance(self.sound_latents, int) or self.sound_latents < 0:
            raise UsageError("sound_latents is wrong", expected="a whole number from 0", got=self.sound_latents)
        if not 0 < self.raw_dim <= width:
            raise UsageError("raw_dim is wrong", expected=f"1 to {width} channels", got=self.raw_dim)
        if not 0 <= self.seed < 2**32:
            raise UsageError("the seed is out of range", expected="0 to 4294967295", got=self.seed)


@dataclass(frozen=True)
class StepTiming:
    """One denoising step."""

    # What the network was told, 0..1000; a whole number except in distilled models
    t: float
    # Forward with the prompt
    cond_ms: float
    # Forward without it; None where guidance was not active
    uncond_ms: Optional[float]
    # Guidance, finiteness check and solver, on the host
    solver_ms: float
    # Whether a velocity came from earlier steps in place of a forward
    cond_reused: bool = False
    uncond_reused: bool = False

    @property
    def forwards(self) -> int:
        """Forwards that were run."""
        return (not self.cond_reused) + (self.uncond_ms is not None and not self.uncond_reused)

    @property
    def reused(self) -> int:
        """Forwards in whose place the step cache came in."""
        return int(self.cond_reused) + int(self.uncond_reused)


@dataclass(frozen=True)
class LoopTimings:
    """Where the time of one `DenoiseLoop.run` went, in ms of wall time."""

    # K and V of prompts that were not in the cache
    prefill_ms: float
    # Rotary tables that were not in the cache
    rope_ms: float
    # Waiting for the noise, or drawing it
    noise_ms: float
    steps: tuple[StepTiming, ...]
    total_ms: float
    # All steps together by the GPU's own clock, where they run without the host; None where `steps` has them one by one
    graph_ms: Optional[float] = None

    @property
    def gen_ms(self) -> float:
        """Forwards of the generator; on a device with the solver, which is not told apart there."""
        if self.graph_ms is not None:
            return self.graph_ms
        return sum(step.cond_ms + (step.uncond_ms or 0.0) for step in self.steps)

    @property
    def solver_ms(self) -> float:
        """Guidance, finiteness check and solver on the host."""
        return sum(step.solver_ms for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class LoopCounters:
    """What one `DenoiseLoop.run` had to do."""

    # Forwards of gen_step that were run
    forwards: int
    # Forwards of und_prefill
    prefills: int
    # Prompts whose K and V were kept from an earlier run
    prompt_hits: int
    # Rotary tables kept from an earlier run
    rope_hits: int
    # Whether the noise had been drawn while the previous run was at work
    noise_ahead: bool
    # How the forwards were launched: "host", "one CUDA graph", or "piece by piece" and why
    launch: str = "host"
    # Forwards left out, whose velocities came from the step cache
    reused: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class GenResult:
    """Denoised latents and actions; the arrays belong to the caller."""

    # fp32 [C, T, h, w], normalised latents, conditioning frames included
    vision: FloatArray
    # fp32 [A, Z], conditioning rows included, zero beyond raw_dim
    action: FloatArray
    timings: LoopTimings
    counters: LoopCounters
    # fp32 [Q, J]; None without sound
    sound: Optional[FloatArray] = None


def _require(name: str, value: object, dtype: type, ndim: int, length: Optional[int] = None) -> None:
    kind = np.dtype(dtype).name
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != ndim:
        got = f"{value.dtype.name} with {value.ndim}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ContractError(f"{name} has the wrong type", expected=f"{kind} array with {ndim} dims", got=got)
    if length is not None and value.shape[0] != length:
        raise ContractError(f"{name} has the wrong length", expected=length, got=value.shape[0])
    if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
        raise ContractError(f"{name} holds NaN or infinity", expected="finite numbers")
