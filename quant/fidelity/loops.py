"""Held-out requests through both sides: velocities at equal inputs, velocities of each side's own loop, results."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from motedge.bundle import Bundle
from motedge.errors import InternalError
from motedge.quant.fidelity.engines import Sides
from motedge.quant.fidelity.figures import ErrorSum, Figures
from motedge.quant.replay import Forward, TappedEngine, encode_prompts, open_loop, repeat_forward, run_requests
from motedge.runtime.engine import Engine, FloatArray
from motedge.runtime.finite import NonFiniteError
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
    # Frames that are generated; those that are given are the same on both sides
    latent: Figures
    # Denoised action rows of both sides: fp32 [requests, A, Z]; NaN where the quantized side gave no result
    reference_actions: FloatArray
    actions: FloatArray
    # The reference's forwards, for whoever wants to look closer
    forwards: list[Forward]


@dataclass(frozen=True)
class _Run:
    """One request on one side."""

    forwards: list[Forward]
    # None: it met a value that is not finite and went no further
    result: GenResult | None


def run_loops(
    bundle: Bundle, sides: Sides, requests: Sequence[GenInputs], settings: SamplerSettings, say: Callable[[str], None]
) -> LoopErrors:
    """Runs both sides on every request; one tower is in memory at a time.

    A quantized side that returns NaN or infinity is measured as such.

    Raises:
        NonFiniteError: the unquantized side does.
    """
    say("reasoner")
    prompts, own_prompts = _encode(bundle, sides, requests, settings)
    und_kv = _prompt_figures(prompts, own_prompts)
    say("generator, unquantized")
    with sides.open(GEN, quantized=False) as engine:
        reference = _run_side(bundle, engine, requests, settings, prompts, tolerant=False)
    gc.collect()
    forwards = [forward for run in reference for forward in run.forwards]
    say("generator, quantized")
    with sides.open(GEN, quantized=True) as engine:
        taught = [[repeat_forward(engine, forward) for forward in run.forwards] for run in reference]
        own = [_Run([], None)] * len(requests)
        if own_prompts is not None:
            own = _run_side(bundle, engine, requests, settings, own_prompts, tolerant=True)
    gc.collect()
    velocities = _velocities(reference, taught, own)
    own_results, results = _results(own, reference), _results(reference, reference)
    latent = ErrorSum()
    for request, (vision, _), (expected, _) in zip(requests, own_results, results, strict=True):
        noisy = request.vision_noisy == 1
        latent.add(vision[:, noisy], expected[:, noisy])
    actions, reference_actions = (np.stack([action for _, action in side]) for side in (own_results, results))
    return LoopErrors(velocities, und_kv, latent.figures(), reference_actions, actions, forwards)


def _results(runs: Sequence[_Run], reference: Sequence[_Run]) -> list[tuple[FloatArray, FloatArray]]:
    """Latent and action rows of each request; NaN in the reference's shape where there is no result."""
    found = []
    for run, other in zip(runs, reference, strict=True):
        result = run.result or other.result
        if result is None:
            raise InternalError("the reference has no result")
        vision, action = result.vision, result.action
        if run.result is None:
            vision, action = np.full_like(vision, np.nan), np.full_like(action, np.nan)
        found.append((vision, action))
    return found


def _encode(
    bundle: Bundle, sides: Sides, requests: Sequence[GenInputs], settings: SamplerSettings
) -> tuple[PromptCache, PromptCache | None]:
    """K and V of both sides; None where the quantized reasoner's are not finite."""
    with sides.open(UND, quantized=False) as engine:
        reference = encode_prompts(bundle, engine, requests, settings)
    with sides.open(UND, quantized=True) as engine:
        try:
            return reference, encode_prompts(bundle, engine, requests, settings)
        except NonFiniteError:
            return reference, None


def _prompt_figures(reference: PromptCache, own: PromptCache | None) -> Figures:
    total = ErrorSum()
    for tokens, expected in reference.items():
        found = None if own is None else own.get(tokens)
        total.add(np.full_like(expected, np.nan) if found is None else found, expected)
    return total.figures()


def _run_side(
    bundle: Bundle,
    engine: Engine,
    requests: Sequence[GenInputs],
    settings: SamplerSettings,
    prompts: PromptCache,
    *,
    tolerant: bool,
) -> list[_Run]:
    """Every request in this side's own loop; `tolerant`: a value that is not finite ends one request alone."""
    heard: list[Forward] = []
    tap = TappedEngine(engine, heard.append)
    loop = open_loop(bundle, tap, prompts)
    runs = []
    try:
        for request in requests:
            result = None
            try:
                result = run_requests(loop, [request], settings, tap)[0]
            except NonFiniteError:
                if not tolerant:
                    raise
            runs.append(_Run(list(heard), result))
            heard.clear()
    finally:
        loop.close()
    return runs


def _velocities(
    reference: Sequence[_Run], taught: Sequence[Sequence[dict[str, FloatArray]]], own: Sequence[_Run]
) -> list[VelocityError]:
    sums: dict[tuple[int, str, float, str], tuple[ErrorSum, ErrorSum]] = {}
    for run, repeated, free in zip(reference, taught, own, strict=True):
        for index, forward in enumerate(run.forwards):
            for name in VELOCITIES:
                expected = forward.outputs[name]
                reached = index < len(free.forwards)
                key = (forward.step, forward.branch, forward.t, name.partition("_")[0])
                pair = sums.setdefault(key, (ErrorSum(), ErrorSum()))
                pair[0].add(repeated[index][name], expected)
                pair[1].add(free.forwards[index].outputs[name] if reached else np.full_like(expected, np.nan), expected)
    return [VelocityError(*key, a.figures(), b.figures()) for key, (a, b) in sums.items()]
