from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motedge.errors import UsageError
from motedge.quant.replay import BRANCHES, Forward
from motedge.quant.sensitivity.gains import forward_gains
from motedge.quant.sensitivity.workload import RecordedForward, Reference, Workload, choose_forwards
from motedge.runtime.request import GenInputs, SamplerSettings
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.unipc import UniPC
from motedge.runtime.unipc_coefficients import UniPCCoefficients


def _loop(steps: int, both: int) -> list[Forward]:
    """A loop with both branches at its first steps."""
    forwards = []
    for step in range(steps):
        forwards += [Forward(step, branch, {}, {}) for branch in BRANCHES[: 1 + (step < both)]]
    return forwards


EDGE = SamplerSettings(guidance_interval=(960.0, 1001.0))


@pytest.mark.parametrize(
    ("settings", "both", "requests", "wanted"),
    [(EDGE, 1, 3, 8), (SamplerSettings(), 4, 2, None), (SamplerSettings(steps=10), 10, 4, None)],
)
def test_every_step_and_branch_is_there_and_requests_take_turns(
    settings: SamplerSettings, both: int, requests: int, wanted: int | None
) -> None:
    steps = settings.steps
    loops = [_loop(steps, both) for _ in range(requests)]
    chosen = choose_forwards(loops, wanted, settings)
    assert len(set(chosen)) == len(chosen) == max(8, steps + both)
    assert {(loops[r][n].step, loops[r][n].branch) for r, n in chosen} == {(f.step, f.branch) for f in loops[0]}
    counts = [sum(r == number for r, _ in chosen) for number in range(requests)]
    assert max(counts) - min(counts) <= 1


def test_forwards_that_decide_the_result_are_measured_more_often() -> None:
    chosen = choose_forwards([_loop(4, 1) for _ in range(4)], 10, EDGE)
    # Both branches of the first step, then one branch a step
    assert [sum(stratum == number for _, stratum in chosen) for number in range(5)] == [1, 1, 1, 3, 4]


def test_gains_are_the_solvers() -> None:
    """The denoising loop itself, with a generator whose velocity is off by a constant in one forward."""
    for settings in (EDGE, SamplerSettings(steps=7, shift=3.0, guidance=2.0)):
        gains = forward_gains(settings)
        coefficients = UniPCCoefficients.from_schedule(FlowSchedule(settings.steps, settings.shift))
        random = np.random.RandomState(0).randn(settings.steps, 2).astype(np.float32)

        def result(step: int, branch: str, off: float) -> float:
            solver, state = UniPC(coefficients, 1), np.ones(1, np.float32)  # noqa: B023
            solver.reset()
            for number, (cond, uncond) in enumerate(random):  # noqa: B023
                changed = {name: off * (number == step and branch == name) for name in BRANCHES}
                v, u = cond + changed[BRANCHES[0]], uncond + changed[BRANCHES[1]]
                both = (number, BRANCHES[1]) in gains  # noqa: B023
                solver.step(number, state, np.float32([u + settings.guidance * (v - u) if both else v]))  # noqa: B023
            return float(state[0])

        for (step, branch), gain in gains.items():
            moved = result(step, branch, 1.0) - result(step, branch, 0.0)
            assert moved**2 == pytest.approx(gain, rel=1e-3, abs=1e-9)


def test_weights_sum_to_one_and_do_not_depend_on_how_often_a_step_was_measured() -> None:
    forwards = [*_loop(4, 1), *_loop(4, 1)[3:]]
    entries = tuple(RecordedForward(0, np.arange(4), 8, forward) for forward in forwards)
    weights = Workload(EDGE, entries, ()).weights()
    gains = forward_gains(EDGE)
    assert sum(weights) == pytest.approx(1)
    assert weights[3] == weights[5] and 2 * weights[3] / weights[0] == pytest.approx(
        gains[2, BRANCHES[0]] / gains[0, BRANCHES[0]]
    )


def test_too_few_forwards_are_refused() -> None:
    with pytest.raises(UsageError, match="too few forwards") as caught:
        choose_forwards([_loop(4, 1)], 4, EDGE)
    assert "--forwards 5" in caught.value.fix


def test_one_request_gives_what_it_has() -> None:
    assert len(choose_forwards([_loop(4, 1)], 100, EDGE)) == 5


def _request() -> GenInputs:
    generator = np.random.RandomState(0)
    return GenInputs(
        generator.rand(2, 3, 4, 5).astype(np.float32),
        np.array([0, 1, 1], np.float32),
        generator.rand(6, 8).astype(np.float32),
        np.ones(6, np.float32),
        np.arange(7),
        None,
        15.0,
        8,
        5,
        3,
    )


def test_a_workload_survives_its_file(tmp_path: Path) -> None:
    shared = np.random.RandomState(1).rand(50_000).astype(np.float32)
    forwards = tuple(
        RecordedForward(0, np.arange(4), 8, Forward(step, "conditional", {"x": shared}, {"y": np.float32([step])}))
        for step in range(3)
    )
    request = _request()
    held_out = (Reference(request, request.vision_clean + 1, request.action_clean - 1),)
    settings = SamplerSettings(steps=3, guidance_interval=(960.0, 1001.0))
    path = tmp_path / "workload.npz"
    Workload(settings, forwards, held_out).save(path)
    # What forwards share is held once
    assert path.stat().st_size < 1.5 * shared.nbytes
    read = Workload.load(path)
    assert read.settings == settings and read.strata() == {f"{step} conditional": 1 for step in range(3)}
    for before, after in zip(forwards, read.forwards, strict=True):
        assert (after.request, after.raw_dim, after.forward.step) == (before.request, 8, before.forward.step)
        np.testing.assert_array_equal(after.forward.inputs["x"], shared)
        np.testing.assert_array_equal(after.forward.outputs["y"], before.forward.outputs["y"])
    assert read.held_out[0].inputs.uncond_tokens is None and read.held_out[0].inputs.fps == 15.0
    for name in ("vision_clean", "vision_noisy", "action_clean", "action_noisy", "cond_tokens"):
        np.testing.assert_array_equal(getattr(read.held_out[0].inputs, name), getattr(request, name))
    np.testing.assert_array_equal(read.held_out[0].action, held_out[0].action)
