"""Sampling of distilled models against diffusers' scheduler and its distilled blocks, with the noise injected."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from motedge.errors import InternalError, UsageError
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.distilled import DistilledSchedule, StochasticEuler
from motedge.runtime.noise import standard_normal, step_noise
from motedge.runtime.request import SamplerSettings

# The published lists of the 4-step variants
LEVELS = (1.0, 0.9375, 0.8333333, 0.625)
DISTILLED = SamplerSettings(steps=4, shift=1.0, guidance=1.0, distilled_sigmas=LEVELS)


def _scheduler() -> Any:
    """As diffusers' distilled blocks set it up."""
    diffusers = pytest.importorskip("diffusers")
    blocks = pytest.importorskip("diffusers.modular_pipelines.cosmos.before_denoise")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True, shift=1.0)
    state = SimpleNamespace(num_inference_steps=None, guidance_scale=None)
    step = blocks.Cosmos3DistilledSetTimestepsStep()
    step.get_block_state, step.set_block_state = lambda _: state, lambda *_: None
    components = SimpleNamespace(
        _execution_device="cpu", config=SimpleNamespace(distilled_sigmas=list(LEVELS)), scheduler=scheduler
    )
    step(components, None)
    return scheduler


def _inject(monkeypatch: pytest.MonkeyPatch, draws: list[np.ndarray]) -> None:
    """Gives diffusers' scheduler these numbers in place of a torch generator's."""
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("diffusers.schedulers.scheduling_flow_match_euler_discrete")
    left = iter(draws)
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: torch.from_numpy(next(left).reshape(tuple(shape))))


def test_schedule_equals_the_distilled_blocks() -> None:
    schedule, scheduler = DistilledSchedule(LEVELS), _scheduler()
    np.testing.assert_array_equal(schedule.sigmas, scheduler.sigmas.numpy())
    np.testing.assert_array_equal(schedule.timesteps, scheduler.timesteps.numpy())
    assert DISTILLED.schedule() == schedule
    # Not cut to a whole number
    assert schedule.timesteps[1] == 937.5


def test_sampler_equals_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    scheduler, random = _scheduler(), np.random.RandomState(2)
    state = random.standard_normal(60).astype(np.float32)
    velocities = random.standard_normal((4, 60)).astype(np.float32)
    _inject(monkeypatch, [step_noise(9, k, 60) for k in range(4)])
    expected, solver = torch.from_numpy(state.copy()), StochasticEuler(DistilledSchedule(LEVELS), (60, 0), 9)
    for k, t in enumerate(scheduler.timesteps):
        solver.step(k, state, velocities[k])
        expected = scheduler.step(torch.from_numpy(velocities[k]), t, expected, return_dict=False)[0]
        np.testing.assert_allclose(state, expected.numpy(), rtol=0, atol=1e-6)


def test_loop_equals_the_distilled_blocks(
    monkeypatch: pytest.MonkeyPatch, numpy_engine: Any, tables: Any, model: Any, gen_inputs: Any
) -> None:
    """The vision of a request whose action rows are all given: the blocks know none."""
    torch = pytest.importorskip("torch")
    denoise = pytest.importorskip("diffusers.modular_pipelines.cosmos.denoise")
    inputs = gen_inputs(action_noisy=np.zeros(5, np.float32), uncond_tokens=None)
    seen: list[dict[str, np.ndarray]] = []

    def spied(x: Any) -> list[np.ndarray]:
        seen.append({name: np.array(value) for name, value in x.items()})
        return model.functions["gen_step"](x)  # type: ignore[no-any-return]

    loop = DenoiseLoop(numpy_engine("und_prefill"), numpy_engine("gen_step", spied), tables, model.config)
    result = loop.run(inputs, DISTILLED)
    shape = inputs.vision_clean.shape
    scheduler = _scheduler()
    _inject(monkeypatch, [step_noise(inputs.seed, k, inputs.vision_clean.size) for k in range(4)])
    clean = torch.zeros(1, 3, 1, 1)
    clean[:, 0] = 1
    reference = torch.from_numpy(inputs.vision_clean)
    start = torch.from_numpy(standard_normal(inputs.seed, shape))
    state = SimpleNamespace(
        latents=clean * reference + (1 - clean) * start,
        vision_condition_mask=clean,
        vision_conditioning_latents=reference,
        vision_condition_indexes_for_pack=[0],
        generator=None,
    )
    update = denoise.Cosmos3DistilledVisionLoopSchedulerStep()
    for k, t in enumerate(scheduler.timesteps):
        inputs_k = {**seen[k], "vision": state.latents.numpy(), "t": np.float32([t])}
        state.velocity_vision = torch.from_numpy(model.functions["gen_step"](inputs_k)[0])
        update(SimpleNamespace(scheduler=scheduler), state, k, t)
    np.testing.assert_allclose(result.vision, state.latents.numpy(), rtol=0, atol=1e-5)
    assert result.counters.forwards == len(seen) == 4
    assert [step.t for step in result.timings.steps] == [float(t) for t in scheduler.timesteps]
    assert np.array_equal(result.vision[:, 0], inputs.vision_clean[:, 0])


def test_the_same_seed_gives_the_same(numpy_engine: Any, tables: Any, model: Any, gen_inputs: Any) -> None:
    loop = DenoiseLoop(numpy_engine("und_prefill"), numpy_engine("gen_step"), tables, model.config)
    first = loop.run(gen_inputs(), DISTILLED)
    other = loop.run(gen_inputs(seed=6), DISTILLED)
    again = loop.run(gen_inputs(), DISTILLED)
    assert np.array_equal(first.vision, again.vision) and np.array_equal(first.action, again.action)
    assert not np.array_equal(first.vision, other.vision)


def test_streams_are_all_different() -> None:
    draws = [standard_normal(5, (8,)), *(step_noise(5, k, 8) for k in range(4)), step_noise(6, 0, 8)]
    assert len({draw.tobytes() for draw in draws}) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 3}, "steps of a distilled"),
        ({"guidance": 3.0}, "guidance of a distilled"),
        ({"shift": 5.0}, "shift of a distilled"),
        ({"distilled_sigmas": ()}, "noise levels"),
        ({"distilled_sigmas": (1.0, 0.5, 0.5, 0.2)}, "noise levels"),
        ({"distilled_sigmas": (1.1, 0.9, 0.5, 0.2)}, "noise levels"),
        ({"distilled_sigmas": (1.0, 0.9, 0.5, 0.0)}, "noise levels"),
        ({"distilled_sigmas": (1.0, "a", 0.5, 0.0)}, "noise levels"),
        ({"distilled_sigmas": (float("nan"), 0.9, 0.5, 0.1)}, "noise levels"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"steps": 4, "shift": 1.0, "guidance": 1.0, "distilled_sigmas": LEVELS}
    with pytest.raises(UsageError, match=message):
        SamplerSettings(**{**fields, **changes})


def test_every_modality_starts_the_same_stream() -> None:
    solver, state = StochasticEuler(DistilledSchedule((1.0, 0.5)), (3, 2, 4), 7), np.zeros(9, np.float32)
    solver.step(0, state, np.zeros(9, np.float32))
    noise = np.float32(0.5) * step_noise(7, 0, 4)
    np.testing.assert_array_equal(state, np.concatenate([noise[:3], noise[:2], noise]))


def test_steps_come_in_order() -> None:
    solver = StochasticEuler(DistilledSchedule(LEVELS), (2, 0), 1)
    with pytest.raises(InternalError, match="step 1"):
        solver.step(1, np.zeros(2, np.float32), np.zeros(2, np.float32))
