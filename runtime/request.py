"""What goes into the denoising loop and what comes out: settings, one request, the result with its accounts."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from motedge.errors import ContractError, UsageError
from motedge.runtime.engine import FloatArray, IntArray
from motedge.runtime.guidance import GuidancePlan


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

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or not 1 <= self.steps <= 1000:
            raise UsageError("the number of denoising steps is wrong", expected="1 to 1000", got=self.steps)
        if not (math.isfinite(self.shift) and self.shift > 0):
            raise UsageError("the flow shift is wrong", expected="a finite number above 0", got=self.shift)
        if self.guidance_interval is not None:
            object.__setattr__(self, "guidance_interval", tuple(self.guidance_interval))
        self.guidance_plan()

    def guidance_plan(self) -> GuidancePlan:
        """At which steps guidance is active."""
        return GuidancePlan(self.guidance, self.guidance_interval)


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
        if not 0 < self.raw_dim <= width:
            raise UsageError("raw_dim is wrong", expected=f"1 to {width} channels", got=self.raw_dim)
        if not 0 <= self.seed < 2**32:
            raise UsageError("the seed is out of range", expected="0 to 4294967295", got=self.seed)


@dataclass(frozen=True)
class StepTiming:
    """One denoising step."""

    # What the network was told, 0..1000
    t: int
    # Forward with the prompt
    cond_ms: float
    # Forward without it; None where guidance was not active
    uncond_ms: Optional[float]
    # Guidance, finiteness check and solver, on the host
    solver_ms: float


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

    # Forwards of gen_step
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


def _require(name: str, value: object, dtype: type, ndim: int, length: Optional[int] = None) -> None:
    kind = np.dtype(dtype).name
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != ndim:
        got = f"{value.dtype.name} with {value.ndim}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ContractError(f"{name} has the wrong type", expected=f"{kind} array with {ndim} dims", got=got)
    if length is not None and value.shape[0] != length:
        raise ContractError(f"{name} has the wrong length", expected=length, got=value.shape[0])
    if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
        raise ContractError(f"{name} holds NaN or infinity", expected="finite numbers")
