"""A distilled checkpoint through export and loop, against diffusers' transformer and its distilled blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import diffusers_oracle as oracle
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.modular_pipelines.cosmos.denoise import Cosmos3DistilledVisionLoopSchedulerStep
from tiny import MINI

from motedge.bundle import Bundle
from motedge.checkpoint.distilled import PUBLISHED_SIGMAS
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.backends import open_engine
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.noise import standard_normal, step_noise
from motedge.runtime.policy.loader import sampler_settings
from motedge.runtime.request import GenInputs
from motedge.runtime.tables import Tables
from motedge.runtime.verify import verify_bundle

SEED, FRAMES, ROWS, RAW_DIM, DOMAIN, FPS = 11, 3, 9, 8, 8, 15.0
PROMPT = list(range(40, 63))
# The policy's; ten times below what distilled models are asked for
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("distilled") / "super", "super", "4step", "tiny", seed=7)


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Bundle:
    root = checkpoint.with_name("bundle")
    export_bundle(Checkpoint.open(checkpoint), root, ExportOptions(MINI, parse_variants("primitive-fp32")))
    return Bundle.open(root)


def test_the_bundle_samples_as_the_checkpoint_says(bundle: Bundle) -> None:
    settings = sampler_settings(bundle.manifest.policy, {})
    assert settings.distilled_sigmas == PUBLISHED_SIGMAS
    assert (settings.steps, settings.guidance, settings.forwards()) == (4, 1.0, 4)
    # Its recorded tick is one of these steps
    assert bundle.manifest.model["variant"] == "4step"
    assert all(report.passed for report in verify_bundle(bundle))


@pytest.mark.capability(mode="distilled", family="super", backend="onnxruntime", proof="parity")
@pytest.mark.parametrize("clean_frames", [[0], []], ids=["image2video", "text2image"])
def test_loop_equals_the_distilled_blocks(
    bundle: Bundle, checkpoint: Path, clean_frames: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vision with the blocks' own step; action rows are given, for the published distilled models make none."""
    random = np.random.RandomState(3)
    clean = random.standard_normal((48, FRAMES, *MINI.grid)).astype(np.float32)
    actions = random.standard_normal((ROWS, 64)).astype(np.float32)
    actions[:, RAW_DIM:] = 0
    noisy = np.ones(FRAMES, np.float32)
    noisy[clean_frames] = 0
    fixed = np.zeros(ROWS, np.float32)
    inputs = GenInputs(clean, noisy, actions, fixed, np.array(PROMPT), None, FPS, DOMAIN, RAW_DIM, SEED)
    settings = sampler_settings(bundle.manifest.policy, {})
    engines = (open_engine(bundle, graph) for graph in ("und_prefill", "gen_step"))
    loop = DenoiseLoop(*engines, Tables.open(bundle), bundle.manifest.model["config"])
    result = loop.run(inputs, settings)
    loop.close()

    scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True, shift=1.0)
    scheduler.set_timesteps(sigmas=list(PUBLISHED_SIGMAS))
    draws = iter([step_noise(SEED, k, clean.size) for k in range(4)])
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_flow_match_euler_discrete.randn_tensor",
        lambda shape, **_: torch.from_numpy(next(draws).reshape(tuple(shape))),
    )
    mask = torch.from_numpy(1 - noisy)[None, :, None, None]
    reference = torch.from_numpy(clean)
    state = SimpleNamespace(
        latents=mask * reference + (1 - mask) * torch.from_numpy(standard_normal(SEED, clean.shape)),
        vision_condition_mask=mask,
        vision_conditioning_latents=reference,
        vision_condition_indexes_for_pack=clean_frames,
        generator=None,
    )
    model, update = oracle.load_transformer(checkpoint), Cosmos3DistilledVisionLoopSchedulerStep()
    rows = list(range(ROWS))
    request = oracle.Request(PROMPT, state.latents, torch.from_numpy(actions), clean_frames, rows, FPS, 0, DOMAIN)
    for k, t in enumerate(scheduler.timesteps):
        state.velocity_vision, _ = oracle.velocity(model, replace(request, vision=state.latents), float(t))
        state.velocity_vision[:, clean_frames] = 0
        update(SimpleNamespace(scheduler=scheduler), state, k, t)
    np.testing.assert_allclose(result.vision, state.latents.numpy(), atol=TOLERANCE, rtol=0)
    np.testing.assert_array_equal(result.action, actions)
