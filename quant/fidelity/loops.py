"""Held-out requests through both sides: velocities at equal inputs, velocities of each side's own loop, results."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from motedge.bundle import Bundle
from motedge.quant.fidelity.engines import Sides
from motedge.quant.fidelity.figures import ErrorSum, Figures
from motedge.quant.replay import Forward, TappedEngine, encode_prompts, open_loop, repeat_forward, run_requests
from motedge.runtime.engine import Engine, FloatArray
from motedge.runtime.prompt_cache import PromptCache
from motedge.runtime.request import GenInputs, GenResult, SamplerSettings

UND, GEN = "und_prefill", "gen_step"
VELOCITIES = ("vision_velocity", "action_velocity")


@dataclass(frozen=True)
class VelocityError:
    """Error of the generator at one step and branch, over all held-out requests."""

    step: int
    branch: str
    t: float
    # "vision" or "action"
    tensor: str
    # Both sides on the reference's inputs
    teacher_forced: Figures
    # Each side in its own loop: errors of earlier steps and of the prompt's K and V count
    free_running: Figures


@dataclass(frozen=True)
class LoopErrors:
    """What held-out requests came to."""

    velocities: list[VelocityError]
    # K and V of the prompts
    und_kv: Figures
    latent: Figures
    # Denoised action rows of both sides: fp32 [requests, A, Z]
    reference_actions: FloatArray
    actions: FloatArray
    # The reference's forwards, for whoever wants to look closer
    forwards: list[Forward]
    prompts: PromptCache


def run_loops(
    bundle: Bundle, sides: Sides, requests: Sequence[GenInputs], settings: SamplerSettings, say: Callable[[str], None]
) -> LoopErrors:
    """Runs both sides on every request; one tower is in memory at a time."""
    say("reasoner")
    prompts = [_encode(bundle, sides, requests, settings, quantized=side) for side in (False, True)]
    say("generator, unquantized")
    with sides.open(GEN, quantized=False) as engine:
        reference, forwards = _loop(bundle, engine, requests, settings, prompts[0])
    gc.collect()
    say("generator, quantized")
    with sides.open(GEN, quantized=True) as engine:
        taught = [repeat_forward(engine, forward) for forward in forwards]
        own, own_forwards = _loop(bundle, engine, requests, settings, prompts[1])
    gc.collect()
    kv, latent = ErrorSum(), ErrorSum()
    for (_, a), (_, b) in zip(prompts[1].items(), prompts[0].items(), strict=True):
        kv.add(a, b)
    for result, expected in zip(own, reference, strict=True):
        latent.add(result.vision, expected.vision)
    return LoopErrors(
        _velocities(forwards, taught, own_forwards),
        kv.figures(),
        latent.figures(),
        np.stack([result.action for result in reference]),
        np.stack([result.action for result in own]),
        forwards,
        prompts[0],
    )


def _encode(
    bundle: Bundle, sides: Sides, requests: Sequence[GenInputs], settings: SamplerSettings, *, quantized: bool
) -> PromptCache:
    with sides.open(UND, quantized=quantized) as engine:
        return encode_prompts(bundle, engine, requests, settings)


def _loop(
    bundle: Bundle, engine: Engine, requests: Sequence[GenInputs], settings: SamplerSettings, prompts: PromptCache
) -> tuple[list[GenResult], list[Forward]]:
    forwards: list[Forward] = []
    tap = TappedEngine(engine, forwards.append)
    loop = open_loop(bundle, tap, prompts)
    try:
        return run_requests(loop, requests, settings, tap), forwards
    finally:
        loop.close()


def _velocities(
    forwards: Sequence[Forward], taught: Sequence[dict[str, FloatArray]], own: Sequence[Forward]
) -> list[VelocityError]:
    sums: dict[tuple[int, str, float, str], tuple[ErrorSum, ErrorSum]] = {}
    for forward, repeated, free in zip(forwards, taught, own, strict=True):
        for name in VELOCITIES:
            key = (forward.step, forward.branch, forward.t, name.partition("_")[0])
            pair = sums.setdefault(key, (ErrorSum(), ErrorSum()))
            pair[0].add(repeated[name], forward.outputs[name])
            pair[1].add(free.outputs[name], forward.outputs[name])
    return [VelocityError(*key, a.figures(), b.figures()) for key, (a, b) in sums.items()]
