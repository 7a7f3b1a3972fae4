"""The graph solver_step against numpy's solver, which is held against diffusers elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from motedge.checkpoint.config import ModelConfig
from motedge.export.contracts import SOLVER_COEFFICIENTS, solver_step
from motedge.export.shapes import SHAPE_SETS
from motedge.export.solver_graph import OPSET, solver_model
from motedge.runtime.device.layout import StateLayout
from motedge.runtime.guidance import GuidancePlan, combine
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.unipc import UniPC
from motedge.runtime.unipc_coefficients import UniPCCoefficients

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

EDGE = ModelConfig(2048, 9216, 28, 16, 8, 131072, "relu2", 1e-5, 1e8, False, True)
CONTRACT = solver_step(EDGE, SHAPE_SETS["droid"])
LAYOUT = StateLayout((3, 3, 5, 7), (5, 6))
GUIDANCE = {
    "off": GuidancePlan(1.0),
    "on": GuidancePlan(3.5),
    "interval": GuidancePlan(6.0, (300, 960)),
    "negative": GuidancePlan(-0.5),
}


@pytest.fixture(scope="module")
def session():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(solver_model(CONTRACT).SerializeToString(), options, ["CPUExecutionProvider"])


class Scene:
    """A made-up network, its clean positions and gaps, and both solvers stepping from the same noise."""

    def __init__(self, seed: int = 3) -> None:
        random = np.random.RandomState(seed)
        self.noisy = (random.uniform(size=LAYOUT.size) > 0.2).astype(np.float32)
        self.noisy[LAYOUT.vision_count : LAYOUT.action_offset] = 0
        self.noisy[LAYOUT.action_offset + LAYOUT.action_count :] = 0
        held = self.noisy == 0
        self.clean = np.where(held, random.standard_normal(LAYOUT.size), 0).astype(np.float32)
        self.clean[LAYOUT.vision_count : LAYOUT.action_offset] = 0
        self.clean[LAYOUT.action_offset + LAYOUT.action_count :] = 0
        self.start = np.where(held, self.clean, random.standard_normal(LAYOUT.size)).astype(np.float32)

    def velocity(self, x: np.ndarray, t: float, branch: float) -> np.ndarray:
        made = np.tanh(np.float32(0.7) * x + np.float32(0.3e-3 * t + branch)) * np.float32(1.1)
        return (made * self.noisy).astype(np.float32)

    def numpy_states(self, table: UniPCCoefficients, guidance: GuidancePlan) -> list[np.ndarray]:
        x, solver, states = self.start.copy(), UniPC(table, LAYOUT.size), []
        for k, t in enumerate(table.timesteps):
            velocity = self.velocity(x, float(t), 0)
            if guidance.active(float(t)):
                both = self.velocity(x, float(t), 0.4)
                velocity = combine(velocity, both, guidance.scale, np.empty_like(velocity))
            solver.step(k, x, velocity)
            x[self.noisy == 0] = self.clean[self.noisy == 0]
            states.append(x.copy())
        return states

    def graph_states(self, session, table: UniPCCoefficients, guidance: GuidancePlan) -> list[np.ndarray]:
        x, states = self.start.copy(), []
        corrected, history = np.zeros_like(x), np.zeros((2, x.size), np.float32)
        for k, t in enumerate(table.timesteps):
            active = guidance.active(float(t))
            cond = self.velocity(x, float(t), 0)
            uncond = self.velocity(x, float(t), 0.4) if active else cond
            row = coefficient_row(table, k, guidance.scale if active else 1)
            x, corrected, history, magnitude = run(session, x, corrected, history, cond, uncond, self, row)
            expected = [np.abs(v).sum(dtype=np.float64) for v in (cond, uncond)]
            np.testing.assert_allclose(magnitude, expected, rtol=1e-5)
            states.append(x)
        return states


def coefficient_row(table: UniPCCoefficients, k: int, scale: float) -> np.ndarray:
    values = [table.sigmas[k], scale, *table.correct[k], *table.predict[k]]
    assert len(values) == len(SOLVER_COEFFICIENTS)
    return np.array(values, np.float32)


def run(session, state, corrected, history, cond, uncond, scene: Scene, row) -> list[np.ndarray]:
    inputs = {"state": state, "corrected": corrected, "history": history, "v_cond": cond, "v_uncond": uncond}
    return session.run(None, {**inputs, "noisy": scene.noisy, "clean": scene.clean, "coefficients": row})


@pytest.mark.parametrize("guidance", GUIDANCE.values(), ids=GUIDANCE)
@pytest.mark.parametrize("shift", [1.0, 5.0, 12.0])
@pytest.mark.parametrize("steps", range(1, 9))
def test_equals_numpy_bit_for_bit(session, steps: int, shift: float, guidance: GuidancePlan) -> None:
    table, scene = UniPCCoefficients.from_schedule(FlowSchedule(steps, shift)), Scene()
    expected = scene.numpy_states(table, guidance)
    got = scene.graph_states(session, table, guidance)
    assert len(got) == steps
    for k, (one, other) in enumerate(zip(expected, got)):
        np.testing.assert_array_equal(one, other, err_msg=f"step {k}")
    assert np.abs(expected[-1] - scene.start).max() > 0.1


def test_one_velocity_for_both_branches_is_taken_exactly(session) -> None:
    # Values whose difference with themselves is 0 but whose products would round
    scene, table = Scene(5), UniPCCoefficients.from_schedule(FlowSchedule(1, 5.0))
    velocity = scene.velocity(scene.start, 999, 0)
    zeros, history = np.zeros_like(velocity), np.zeros((2, velocity.size), np.float32)
    plain = run(session, scene.start, zeros, history, velocity, velocity, scene, coefficient_row(table, 0, 1))
    scaled = run(session, scene.start, zeros, history, velocity, velocity, scene, coefficient_row(table, 0, 7.3))
    np.testing.assert_array_equal(plain[2][0], scene.start - velocity * table.sigmas[0])
    for one, other in zip(plain, scaled):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("branch", [0, 1])
def test_what_is_not_finite_shows_in_its_branch_alone(session, branch: int, value: float) -> None:
    scene, table = Scene(), UniPCCoefficients.from_schedule(FlowSchedule(4, 5.0))
    velocities = [scene.velocity(scene.start, 999, shift) for shift in (0, 0.4)]
    position = int(np.flatnonzero(scene.noisy == 0)[0])
    velocities[branch][position] = value
    zeros, history = np.zeros_like(scene.start), np.zeros((2, LAYOUT.size), np.float32)
    found = run(session, scene.start, zeros, history, *velocities, scene, coefficient_row(table, 0, 3))
    assert list(np.isfinite(found[3])) == [branch == 1, branch == 0]
    # The clean position itself is chosen, not computed
    assert found[0][position] == scene.clean[position]


def test_the_file_is_small_old_enough_and_whole() -> None:
    model = solver_model(CONTRACT)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == OPSET == 17
    assert len(model.SerializeToString()) < 10_000
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert [value.name for value in model.graph.input] == [spec.name for spec in CONTRACT.inputs]
    assert [value.name for value in model.graph.output] == [spec.name for spec in CONTRACT.outputs]


def test_its_profile_is_that_of_the_generator() -> None:
    low, opt, high = CONTRACT.profile["M"]
    # droid: 48 channels, 9 frames of 33 x 40, 33 rows of 64
    assert opt == 48 * 9 * 33 * 40 + 33 * 64
    assert (low, high) == (48 * 2 * 33 * 40 + 2 * 64, 48 * 9 * 33 * 40 + 65 * 64)
