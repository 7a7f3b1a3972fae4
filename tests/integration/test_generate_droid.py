"""`generate policy` on a DROID policy's bundle is `motedge run`: same noise, same actions, gripper included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import MINI_POLICY

from motedge.checkpoint.reader import Checkpoint
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.generate import GenerateRequest, load_generator
from motedge.runtime.generate.caption import Take, action_caption
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.policy.loader import load_policy
from motedge.runtime.policy.observation import Observation

pytestmark = pytest.mark.slow
JOINTS = np.array([0.1, -0.4, 0.4, -2.4, 0.0, 2.0, 0.6])


def test_the_same_actions(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    options = ExportOptions(MINI_POLICY, parse_variants("primitive-fp32"), "none")
    export_bundle(Checkpoint.open(checkpoints["edge"]), bundle, options)
    view = np.random.default_rng(2).integers(0, 256, (360, 640, 3)).astype(np.uint8)
    seen = Observation(JOINTS, 0.8, "Lift the cup.", views={"wrist": view, "left": view[::-1], "right": view[:, ::-1]})
    # The mini canvas is none of the trained ones, whose shapes alone both call the same
    take = Take(33, MINI_POLICY.fps, MINI_POLICY.canvas)
    prompt = action_caption("Lift the cup.", take, find_embodiment("droid_lerobot").framing())
    with load_policy(bundle) as policy:
        chunk = policy.act(seen, seed=3, prompt=prompt)
        settings, picture = policy.settings, policy.see(seen)[0]
    sampler = {name: getattr(settings, name) for name in ("steps", "shift", "guidance", "guidance_interval")}
    request = GenerateRequest(
        "policy",
        "Lift the cup.",
        image=picture,
        state=[*JOINTS, 0.8],
        embodiment="droid_lerobot",
        frames=33,
        seed=3,
        sampler=sampler,
    )
    with load_generator(bundle) as generator:
        made = generator.generate(request)
    assert made.raw_actions
    np.testing.assert_allclose(made.actions, chunk.actions, atol=1e-6, rtol=0)
