"""How far the plans of the towers are from the expert's, on roads that were not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from examples.train_small.model.towers import Prompts, Towers
from examples.train_small.road.instructions import BEHAVIOURS
from examples.train_small.train.drives import Drives
from examples.train_small.train.texts import EMBODIMENT, EMPTY, text_of
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.unipc_coefficients import UniPCCoefficients


@torch.no_grad()
def sample(
    towers: Towers,
    prompts: Prompts,
    text: Tensor,
    vision: Tensor,
    rows: int,
    *,
    steps: int = 4,
    shift: float = 5.0,
    guidance: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Denoises with UniPC: latents [B, C, T, h, w], frame 0 as given, and actions [B, rows, Z].

    Args:
        towers: the model.
        prompts: its texts.
        text: int64 [B], which each sample is told.
        vision: [B, C, T, h, w]; only frame 0 is read.
        rows: of actions.
        steps: network steps.
        shift: of the schedule.
        guidance: 1 for none; otherwise at every step, away from the empty text.
    """
    domain = find_embodiment(EMBODIMENT)
    table = UniPCCoefficients.from_schedule(FlowSchedule(steps, shift))
    used = torch.zeros(towers.config.action_dim, device=vision.device)
    used[: domain.raw_dim] = 1
    noisy = torch.ones(vision.shape[2], device=vision.device)
    noisy[0] = 0
    frames = noisy[:, None, None]
    x = frames * torch.randn_like(vision) + (1 - frames) * vision
    a = used * torch.randn(len(vision), rows, len(used), device=vision.device)
    history: list[tuple[Tensor, Tensor]] = []
    corrected = x, a
    for k in range(steps):
        t = torch.full((len(vision),), float(table.timesteps[k]), device=vision.device)
        velocity = towers(prompts, text, x, a, noisy, t, domain.domain_id)
        if guidance != 1:
            plain = towers(prompts, torch.full_like(text, EMPTY), x, a, noisy, t, domain.domain_id)
            velocity = tuple(p + guidance * (v - p) for v, p in zip(velocity, plain, strict=True))
        sigma = float(table.sigmas[k])
        history.insert(0, (x - sigma * velocity[0], a - sigma * velocity[1] * used))
        terms = [(x, a), corrected, *history]
        corrected = _combine(table.correct[k], terms)
        x, a = _combine(table.predict[k], [corrected, *history])
        x = frames * x + (1 - frames) * vision
    return x, a


def _combine(factors: np.ndarray, terms: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    parts = [(float(f), term) for f, term in zip(factors, terms, strict=False) if f]
    return sum(f * term[0] for f, term in parts), sum(f * term[1] for f, term in parts)  # type: ignore[return-value]


def places(rows: Tensor) -> Tensor:
    """Where a plan leads, seen from where it begins: [..., n, 9] -> x to the right and z ahead in m, [..., n, 2]."""
    angle = torch.atan2(-rows[..., 5], rows[..., 3])
    heading = torch.cumsum(angle, -1) - angle
    x, z = rows[..., 0], rows[..., 2]
    sine, cosine = torch.sin(heading), torch.cos(heading)
    return torch.stack((x * cosine + z * sine, z * cosine - x * sine), -1).cumsum(-2)


@torch.no_grad()
def plan_errors(
    towers: Towers,
    prompts: Prompts,
    drives: Drives,
    latents: Tensor,
    *,
    samples: int = 256,
    seed: int = 0,
    **sampler: Any,
) -> dict[str, Any]:
    """Distances between plans and the expert's in m, and for which behaviour's a plan would be taken.

    Returns:
        "mean_m" and "last_m" by behaviour: mean distance over a plan, and at its end; "between_m": the mean distance of
        the expert's plans for two behaviours; "confusion": rows told, columns the nearest plan of the expert.
    """
    torch.manual_seed(seed)
    lot = np.random.default_rng(seed)
    which = torch.from_numpy(lot.integers(len(drives), size=samples)).to(drives.device)
    mirror = torch.zeros_like(which, dtype=torch.bool)
    each = [drives.plan(which, mirror, torch.full_like(which, number)) for number in range(len(BEHAVIOURS))]
    expert = torch.stack([places(plan) for plan in each], 1)
    vision = latents[0, which].float()
    result: dict[str, Any] = {"mean_m": {}, "last_m": {}, "confusion": []}
    for number, name in enumerate(BEHAVIOURS):
        text = text_of(torch.full_like(which, number), torch.zeros_like(which))
        _, action = sample(towers, prompts, text, vision, expert.shape[2], **sampler)
        made = places(action[..., :9])
        away = (made[:, None] - expert).norm(dim=-1)
        result["mean_m"][name] = round(float(away[:, number].mean()), 4)
        result["last_m"][name] = round(float(away[:, number, -1].mean()), 4)
        nearest = away.mean(-1).argmin(1)
        result["confusion"].append(torch.bincount(nearest, minlength=len(BEHAVIOURS)).tolist())
    pairs = [(i, j) for i in range(len(BEHAVIOURS)) for j in range(i)]
    between = [(expert[:, i] - expert[:, j]).norm(dim=-1).mean() for i, j in pairs]
    result["between_m"] = round(float(torch.stack(between).mean()), 4)
    return result
