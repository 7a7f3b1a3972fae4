"""SeaCache on a bundle beside diffusers' own on the whole model: the same steps are computed, the error is as large."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import diffusers_oracle as oracle
import numpy as np
import pytest
import torch
from tiny import MINI

from motedge.bundle import Bundle
from motedge.runtime.backends import open_engine
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.noise import standard_normal
from motedge.runtime.request import GenInputs, SamplerSettings
from motedge.runtime.step_cache.options import SeaCache
from motedge.runtime.tables import Tables

hooks = pytest.importorskip("diffusers.hooks.sea_cache")

STEPS, SHIFT, SEED, FRAMES, ROWS, RAW_DIM, DOMAIN, FPS = 12, 10.0, 11, 3, 9, 8, 8, 15.0
PROMPT, NEGATIVE = list(range(40, 63)), list(range(30, 37))
# The largest distance of either from the uncached result; both extrapolate, one the layers' residual, one the velocity
ERROR = 0.05


def _theirs(model: torch.nn.Module, start: oracle.Request, guidance: float) -> tuple[list[int], torch.Tensor]:
    """Steps at which the conditional layers ran, and the latents; each branch has a cache, as in the pipeline."""
    calls: list[int] = []
    first = next(module for module in model.layers[0].modules() if isinstance(module, torch.nn.Linear))
    first.register_forward_hook(lambda *_: calls.append(1))
    solvers, request, ran = oracle.schedulers(STEPS, SHIFT), start, []
    for k, t in enumerate(solvers[0].timesteps.tolist()):
        before = len(calls)
        v, a = _velocity(model, request, "cond", k, t)
        if len(calls) > before:
            ran.append(k)
        if guidance != 1:
            v_u, a_u = _velocity(model, replace(request, tokens=NEGATIVE), "uncond", k, t)
            v, a = v_u + guidance * (v - v_u), a_u + guidance * (a - a_u)
        a[:, RAW_DIM:] = 0
        v[:, 0], a[0] = 0, 0
        vision = solvers[0].step(v, t, request.vision, return_dict=False)[0]
        action = solvers[1].step(a, t, request.action, return_dict=False)[0]
        vision[:, 0], action[0] = start.vision[:, 0], start.action[0]
        request = replace(request, vision=vision, action=action)
    return ran, request.vision


def _velocity(
    model: torch.nn.Module, request: oracle.Request, branch: str, k: int, t: float
) -> tuple[torch.Tensor, torch.Tensor]:
    with model.cache_context(branch, step_index=k, sigma=t / 1000, num_inference_steps=STEPS):
        return oracle.velocity(model, request, t)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.capability(mode="step_cache", family="edge", backend="onnxruntime", proof="property")
@pytest.mark.parametrize(("threshold", "guidance"), [(0.35, 1.0), (0.35, 3.0), (0.6, 1.0)])
def test_the_same_steps_are_computed(
    bundles: dict[str, Path], checkpoints: dict[str, Path], threshold: float, guidance: float
) -> None:
    random = np.random.RandomState(3)
    clean = random.standard_normal((48, FRAMES, *MINI.grid)).astype(np.float32)
    noisy, rows = np.ones(FRAMES, np.float32), np.ones(ROWS, np.float32)
    noisy[0] = rows[0] = 0
    actions, prompts = np.zeros((ROWS, 64), np.float32), (np.array(PROMPT), np.array(NEGATIVE))
    inputs = GenInputs(clean, noisy, actions, rows, *prompts, FPS, DOMAIN, RAW_DIM, SEED)
    bundle = Bundle.open(bundles["edge"])
    engines = (open_engine(bundle, graph) for graph in ("und_prefill", "gen_step"))
    loop = DenoiseLoop(*engines, Tables.open(bundle), bundle.manifest.model["config"])
    settings = SamplerSettings(STEPS, SHIFT, guidance)
    plain, ours = (loop.run(inputs, replace(settings, step_cache=cache)) for cache in (None, SeaCache(threshold)))
    loop.close()

    vision, action = (torch.from_numpy(standard_normal(SEED, x.shape)) for x in (clean, actions))
    vision[:, 0], action[0] = torch.from_numpy(clean[:, 0]), torch.from_numpy(actions[0])
    action[:, RAW_DIM:] = 0
    start = oracle.Request(PROMPT, vision, action, [0], [0], FPS, 0, DOMAIN)
    model = oracle.load_transformer(checkpoints["edge"])
    model.enable_cache(hooks.SeaCacheConfig(threshold=threshold, residual_order=1, max_consecutive_cached=0))
    ran, latents = _theirs(model, start, guidance)
    assert [k for k, step in enumerate(ours.timings.steps) if not step.cond_reused] == ran
    assert 2 < len(ran) < STEPS
    own, reference = _distance(ours.vision, plain.vision), _distance(latents.numpy(), plain.vision)
    assert 0 < own < ERROR and 0 < reference < ERROR and own < 2 * reference
