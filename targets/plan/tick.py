"""The time of a control tick, and whether chunks of actions keep up with the robot.

A tick, with the prompts' K and V kept from the one before: the image is prepared and encoded, gen_step runs once or
twice a step, the solver combines and advances. What the host does while engines run is taken to cost nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from motedge.bundle import Bundle
from motedge.targets.plan.assumptions import HOST_SLOWER, IMAGE_S, SOLVER_S
from motedge.targets.plan.model import NO, WITHIN_ERROR, YES, OperatingPoint, Stage, TickPlan
from motedge.targets.plan.sampling import Sampling

# Frames -> predicted time of one forward; None: the shape set's frames
ForwardTime = Callable[[Optional[int]], Stage]


def plan_tick(
    bundle: Bundle, stages: Mapping[str, Stage], forward: ForwardTime, asked: Sampling, *, others: bool
) -> Optional[TickPlan]:
    """The tick at what was asked for, and at other operating points beside it.

    Args:
        bundle: for its policy and shape set.
        stages: of the graphs, by name.
        forward: one run of gen_step at other frames.
        asked: the operating point to judge.
        others: whether others are worked out too.

    Returns:
        None where the bundle is no policy's: no chunk of actions, or no graph for it.
    """
    policy, shapes = bundle.manifest.policy, bundle.manifest.shape_set
    if not {"chunk", "fps"} <= set(policy) or "gen_step" not in stages:
        return None
    chunk, rate_hz = int(policy["chunk"]), float(policy["fps"])
    period_s = chunk / rate_hz
    image_s = (IMAGE_S.value or 0) * shapes["canvas"][0] * shapes["canvas"][1]
    vae = stages.get("vae_encoder")
    named = [("as asked", asked, "")] + (_others(asked, policy) if others else [])
    points = []
    for name, sampling, note in named:
        host_s = image_s + sampling.steps * (SOLVER_S.value or 0) * _values(bundle, sampling.frames)
        low, middle, high = host_s, host_s, host_s * (HOST_SLOWER.value or 1)
        for stage, count in ((vae, 1), (forward(sampling.frames), sampling.forwards)):
            if stage is not None:
                low, middle = low + count * stage.low_s, middle + count * stage.time_s
                high += count * stage.high_s
        points.append(_point(bundle, name, sampling, (low, middle, high), period_s, note))
    host_s = image_s + asked.steps * (SOLVER_S.value or 0) * _values(bundle, asked.frames)
    prefill = stages.get("und_prefill")
    return TickPlan(
        points=tuple(points),
        host_s=host_s,
        host_high_s=host_s * (HOST_SLOWER.value or 1),
        prefill_s=asked.branches * prefill.time_s if prefill is not None else 0.0,
        period_s=period_s,
        rate_hz=rate_hz,
        chunk=chunk,
    )


def _others(asked: Sampling, policy: Mapping[str, Any]) -> list[tuple[str, Sampling, str]]:
    """Points worth knowing, those that are none of the ones before them."""
    plain = Sampling.of_policy(policy)
    candidates: Sequence[tuple[str, Sampling, str]] = (
        ("the bundle's policy", plain, ""),
        ("guidance at every step", dataclasses.replace(asked, interval=None), ""),
        ("half the steps", dataclasses.replace(asked, steps=max(1, asked.steps // 2)), "quality to be checked"),
        ("no guidance", dataclasses.replace(asked, guidance=1.0), "published success rates fall without guidance"),
    )
    found: list[tuple[str, Sampling, str]] = []
    seen = [asked]
    for name, sampling, note in candidates:
        same = [other for other in seen if _key(other) == _key(sampling)]
        if not same:
            found.append((name, sampling, note))
            seen.append(sampling)
    return found


def _key(sampling: Sampling) -> tuple[Any, ...]:
    return sampling.steps, sampling.forwards, sampling.frames


def _point(
    bundle: Bundle, name: str, sampling: Sampling, times: tuple[float, float, float], period_s: float, note: str
) -> OperatingPoint:
    low, middle, high = times
    return OperatingPoint(
        name=name,
        steps=sampling.steps,
        guidance=sampling.guidance,
        guidance_interval=sampling.interval,
        frames=_frames(bundle, sampling.frames),
        forwards=sampling.forwards,
        tick_s=middle,
        low_s=low,
        high_s=high,
        in_time=YES if high <= period_s else NO if low > period_s else WITHIN_ERROR,
        note=note,
    )


def _frames(bundle: Bundle, frames: Optional[int]) -> int:
    return int(bundle.manifest.shape_set["latent"][0]) if frames is None else frames


def _values(bundle: Bundle, frames: Optional[int]) -> int:
    """Values of the state that the solver advances."""
    contract = bundle.contract("gen_step")
    sizes = {**contract.optimum(), "T": _frames(bundle, frames)}
    total = 0
    for name in ("vision", "action"):
        count = 1
        for size in contract.tensor(name).shape(sizes):
            count *= size
        total += count
    return total
