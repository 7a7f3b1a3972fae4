from __future__ import annotations

import dataclasses
from typing import Optional

import pytest
from plan_scene import POLICY, policy_bundle, stage

from motedge.errors import UsageError
from motedge.targets.plan.model import Stage, TickPlan
from motedge.targets.plan.sampling import Sampling
from motedge.targets.plan.tick import plan_tick


def tick(forward_s: float, vae_s: float = 0.0, prefill_s: float = 0.0, **changed: object) -> TickPlan:
    asked = dataclasses.replace(Sampling.of_policy(POLICY), **changed)
    stages = {"gen_step": stage(forward_s), "vae_encoder": stage(vae_s), "und_prefill": stage(prefill_s)}

    def forward(frames: Optional[int]) -> Stage:
        return stage(forward_s * (frames or 2) / 2)

    made = plan_tick(policy_bundle(), stages, forward, asked, others=True)
    assert made is not None
    return made


def test_forwards_of_the_published_policies() -> None:
    """Edge guides at t = 999 alone: 5; Nano guides at every step: 8."""
    assert Sampling.of_policy(POLICY).forwards == 5
    assert Sampling.of_policy({**POLICY, "guidance_interval": None}).forwards == 8
    assert Sampling.of_policy(POLICY, guidance=1.0).forwards == 4
    assert (Sampling.of_policy(POLICY).branches, Sampling.of_policy(POLICY, guidance=1.0).branches) == (2, 1)
    with pytest.raises(UsageError, match="steps"):
        _ = Sampling.of_policy(POLICY, steps=0).forwards


def test_a_tick_is_one_image_and_all_forwards() -> None:
    made = tick(0.1, vae_s=0.03, prefill_s=0.2)
    point = made.points[0]
    assert point.tick_s == pytest.approx(0.03 + 5 * 0.1 + made.host_s)
    assert point.low_s == pytest.approx((0.03 + 0.5) / 1.25 + made.host_s)
    assert point.high_s == pytest.approx((0.03 + 0.5) * 1.25 + made.host_high_s)
    # K and V are kept: both prompts, once an instruction, and not in the tick
    assert made.prefill_s == pytest.approx(0.4)


@pytest.mark.parametrize(("forward_s", "answer"), [(0.3, "yes"), (0.42, "within the error"), (0.6, "no")])
def test_a_chunk_of_32_actions_at_15_hz_lasts_2_13_s(forward_s: float, answer: str) -> None:
    made = tick(forward_s)
    assert made.period_s == pytest.approx(2.1333, abs=1e-4)
    assert made.points[0].in_time == answer


def test_other_ways_of_sampling_are_named_once() -> None:
    made = tick(0.1)
    keys = [(point.steps, point.forwards, point.frames) for point in made.points]
    assert len(set(keys)) == len(keys) and (4, 8, 2) in keys and (2, 3, 2) in keys and (4, 4, 2) in keys


def test_no_policy_no_tick() -> None:
    bundle = policy_bundle()
    del bundle.manifest.policy["chunk"]
    assert (
        plan_tick(bundle, {"gen_step": stage(1)}, lambda _: stage(1), Sampling.of_policy(POLICY), others=False) is None
    )
