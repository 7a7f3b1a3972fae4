"""The solver against diffusers' UniPCMultistepScheduler, and the coefficients of the published policy schedule."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from motedge.errors import ContractError, InternalError, UsageError
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.unipc import UniPC
from motedge.runtime.unipc_coefficients import UniPCCoefficients

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

TOLERANCE = 2e-6
SHIFTS = (1.0, 3.0, 5.0, 10.0, 12.0)
STEPS = (1, 2, 3, 4, 5, 10, 20, 35)
GRIDS = [("native", shift) for shift in SHIFTS] + [("linear", shift) for shift in SHIFTS] + [("karras", 1.0)]
CONFIGURATIONS = list(itertools.product((1, 2, 3), ("bh1", "bh2"), (True, False), GRIDS, STEPS))


def _network(x: np.ndarray, t: int) -> np.ndarray:
    return np.tanh(np.float32(0.7) * x + np.float32(0.3e-3 * t)).astype(np.float32) * np.float32(1.1)


def _start() -> np.ndarray:
    return np.random.RandomState(1).standard_normal((1, 3, 5, 7)).astype(np.float32)


def _scheduler(order: int, solver_type: str, lower_order_final: bool, spacing: str, shift: float, steps: int):
    options = {"use_karras_sigmas": True, "sigma_min": 0.147, "sigma_max": 200.0} if spacing == "karras" else {}
    scheduler = diffusers.UniPCMultistepScheduler(
        solver_order=order,
        solver_type=solver_type,
        lower_order_final=lower_order_final,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
        **options,
    )
    if spacing == "native":
        scheduler.set_timesteps(sigmas=np.linspace(1 - 1 / 1000, 0, steps + 1)[:-1])
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def _oracle_states(scheduler) -> list[np.ndarray]:
    """The state after each step, up to where diffusers itself gives NaN or finds no solution."""
    x, states = torch.from_numpy(_start()), []
    for k, t in enumerate(scheduler.timesteps):
        # Timesteps repeat in long karras schedules; by default diffusers would skip one
        scheduler._step_index = k
        try:
            x = scheduler.step(torch.from_numpy(_network(x.numpy(), int(t))), t, x).prev_sample
        except RuntimeError:
            break
        if not torch.isfinite(x).all():
            break
        states.append(x.numpy().copy())
    return states


def _our_states(coefficients: UniPCCoefficients) -> list[np.ndarray]:
    x, states = _start(), []
    solver = UniPC(coefficients, x.size)
    for k, t in enumerate(coefficients.timesteps):
        solver.step(k, x, _network(x, int(t)))
        states.append(x.copy())
    return states


def test_equals_diffusers_in_every_configuration() -> None:
    warnings.simplefilter("ignore")
    finals = steps_compared = 0
    for order, solver_type, lower_order_final, (spacing, shift), steps in CONFIGURATIONS:
        name = (order, solver_type, lower_order_final, spacing, shift, steps)
        scheduler = _scheduler(order, solver_type, lower_order_final, spacing, shift, steps)
        schedule = FlowSchedule(steps, shift, spacing)
        assert np.array_equal(schedule.sigmas, scheduler.sigmas.numpy()), name
        assert schedule.sigmas.dtype == np.float32
        assert np.array_equal(schedule.timesteps, scheduler.timesteps.numpy()), name
        ours = _our_states(
            UniPCCoefficients.from_schedule(
                schedule, order=order, solver_type=solver_type, lower_order_final=lower_order_final
            )
        )
        assert np.isfinite(ours).all(), name
        oracle = _oracle_states(scheduler)
        for k, expected in enumerate(oracle):
            error = np.abs(ours[k] - expected).max()
            # The result is held absolutely. On the way the state is larger, and so is its fp32 ulp (2.4e-7 beyond 2);
            # both implementations then lie equally far, 1e-6, from the same steps in fp64
            scale = 1.0 if k == steps - 1 else max(1.0, np.abs(expected).max())
            assert error <= TOLERANCE * scale, (name, k, error)
        finals += len(oracle) == steps
        steps_compared += len(oracle)
    assert len(CONFIGURATIONS) == 1056
    # bh1 ends in NaN in diffusers (B(h) is infinite at sigma 0), as does order > 1 without lower_order_final
    assert finals >= 300
    assert steps_compared >= 8000


def test_coefficients_of_the_policy_schedule() -> None:
    """Four steps, shift 5: the values that NVIDIA's own sampler arrives at."""
    table = UniPCCoefficients.from_schedule(FlowSchedule(4, 5.0))
    expected_predict = [
        [0.9374531, 0.0625469, 0],
        [0.8888148, 0.1216743, -0.0104890],
        [0.7498749, 0.3753392, -0.1252142],
        [0, 1, 0],
    ]
    expected_correct = [
        [1, 0, 0, 0, 0],
        [0, 0.9374531, 0.0312735, 0.0312735, 0],
        [0, 0.8888148, 0.0626712, 0.0490582, -0.0005442],
        [1, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(table.predict, expected_predict, atol=2e-7, rtol=0)
    np.testing.assert_allclose(table.correct, expected_correct, atol=2e-7, rtol=0)


def test_coefficients_of_two_steps() -> None:
    table = UniPCCoefficients.from_schedule(FlowSchedule(2, 5.0))
    np.testing.assert_allclose(table.predict, [[0.8332221, 0.1667779, 0], [0, 1, 0]], atol=1e-7, rtol=0)


def test_a_row_of_coefficients_sums_to_what_keeps_a_constant() -> None:
    """With v = 0 every m equals x, so a state at its own x0 must stay there."""
    table = UniPCCoefficients.from_schedule(FlowSchedule(30, 10.0))
    np.testing.assert_allclose(table.predict.sum(axis=1), 1, atol=3e-7)
    np.testing.assert_allclose(table.correct.sum(axis=1), 1, atol=3e-7)


def test_one_solver_over_the_flat_vector_equals_one_each() -> None:
    table = UniPCCoefficients.from_schedule(FlowSchedule(6, 5.0))
    random = np.random.RandomState(0)
    # Larger than one block of 65,536, so that blocks are tried too
    flat = random.standard_normal(70_000).astype(np.float32)
    parts = [flat[:69_000].copy(), flat[69_000:].copy()]
    whole, solvers = UniPC(table, flat.size), [UniPC(table, p.size) for p in parts]
    for k, t in enumerate(table.timesteps):
        velocity = _network(flat, int(t))
        for solver, part, v in zip(solvers, parts, np.split(velocity, [69_000])):
            solver.step(k, part, v)
        whole.step(k, flat, velocity)
        assert np.array_equal(flat, np.concatenate(parts))


def test_a_solver_can_be_used_again() -> None:
    table = UniPCCoefficients.from_schedule(FlowSchedule(5, 3.0))
    solver = UniPC(table, _start().size)

    def run() -> np.ndarray:
        x = _start()
        for k, t in enumerate(table.timesteps):
            solver.step(k, x, _network(x, int(t)))
        return x

    first = run()
    solver.reset()
    assert np.array_equal(first, run())


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros(4, np.float64),
        lambda: np.zeros(5, np.float32),
        lambda: np.zeros((4, 2), np.float32)[:, 0],
    ],
)
def test_refuses_other_arrays(make: Callable[[], np.ndarray]) -> None:
    solver = UniPC(UniPCCoefficients.from_schedule(FlowSchedule(2, 1.0)), 4)
    with pytest.raises(ContractError, match="4 contiguous float32"):
        solver.step(0, np.zeros(4, np.float32), make())


def test_steps_come_in_order() -> None:
    solver = UniPC(UniPCCoefficients.from_schedule(FlowSchedule(2, 1.0)), 4)
    with pytest.raises(InternalError):
        solver.step(1, np.zeros(4, np.float32), np.zeros(4, np.float32))


def test_refuses_unknown_options() -> None:
    schedule = FlowSchedule(2, 1.0)
    with pytest.raises(UsageError, match="1, 2 or 3"):
        UniPCCoefficients.from_schedule(schedule, order=4)
    with pytest.raises(UsageError, match="bh2"):
        UniPCCoefficients.from_schedule(schedule, solver_type="bh3")


def test_a_step_of_the_policy_state_takes_milliseconds() -> None:
    """[48, 9, 33, 40] and [33, 64]: 572,352 elements. About 2 ms on one 2020s core; the bound only finds blunders."""
    size = 48 * 9 * 33 * 40 + 33 * 64
    table = UniPCCoefficients.from_schedule(FlowSchedule(4, 5.0))
    solver, x, v = UniPC(table, size), np.ones(size, np.float32), np.ones(size, np.float32)
    start = time.process_time()
    for k in range(4):
        solver.step(k, x, v)
    assert (time.process_time() - start) / 4 < 0.1
