"""The road of examples/train_small: its geometry, its expert, its simulator and camera."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="the road needs motedge[drive]")
pytest.importorskip("Box2D", reason="the road needs motedge[drive]")
pytest.importorskip("pygame", reason="the road needs motedge[drive]")

import examples_package  # noqa: F401

from examples.train_small.road import versions
from examples.train_small.road.expert import (
    LATERAL_M,
    ROWS,
    SPEED_M_S,
    Expert,
    behaviour_index,
    planar_rows,
    planar_trajectory,
)
from examples.train_small.road.instructions import BEHAVIOURS, CANONICAL, HELD_OUT, TASKS, TRAINED, behaviour_of
from examples.train_small.road.simulator import Simulator
from examples.train_small.road.track import HALF_WIDTH_M, Track
from motedge.errors import ContractError, DataError, HostError, MissingPackageError, UsageError
from motedge.runtime.actions.poses import rows_from_trajectory, trajectory_from_rows

IDENTITY = [0, 0, 0, 1, 0, 0, 0, 1, 0]


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator()


def circle(radius: float, turn: float = 1.0) -> Track:
    angle = np.linspace(0, 2 * np.pi * turn, 400, endpoint=False)
    return Track(radius * np.stack([np.cos(angle), np.sin(angle)], -1))


@pytest.mark.parametrize("turn", [1.0, -1.0], ids=["to the left", "to the right"])
def test_a_circle_is_seen_as_one(turn: float) -> None:
    track = circle(40.0, turn)
    assert track.length_m == pytest.approx(2 * np.pi * 40, rel=0.01)
    assert track.curvature == pytest.approx(turn / 40, rel=0.02)
    # Inside a circle to the left is on the left, which is negative
    _, lateral = track.project([[38.0, 0.0], [43.0, 0.0]])
    assert lateral * turn == pytest.approx([-2.0, 3.0], abs=0.1)


def test_ways_and_laterals_lead_to_a_point_and_back() -> None:
    track = circle(50.0)
    s = np.array([0.1, 100.0, 250.0, track.length_m + 3.0])
    centre, yaw, _ = track.at(s)
    beside = np.array([-5.0, 0.0, 4.0, 6.0])
    points = centre + beside[:, None] * np.stack([np.cos(yaw), np.sin(yaw)], -1)
    found, lateral = track.project(points, s + 2.0)
    assert found == pytest.approx(s, abs=0.05) and lateral == pytest.approx(beside, abs=0.02)


@pytest.mark.parametrize("points", [[[0, 0]], np.full((20, 2), np.nan), np.zeros((20, 3))], ids=["few", "NaN", "space"])
def test_no_road(points: Any) -> None:
    with pytest.raises(ContractError, match="no road"):
        Track(points)


def test_rows_are_those_of_the_runtime() -> None:
    """The chunk's axes and signs are motedge's, which are held against cosmos-framework elsewhere."""
    lot = np.random.default_rng(0)
    poses = np.cumsum(lot.normal(0, [1, 1, 0.3], (9, 3)), 0)
    matrices = np.zeros((9, 4, 4))
    for matrix, (x, y, yaw) in zip(matrices, poses):
        right, down, ahead = (np.cos(yaw), np.sin(yaw), 0), (0, 0, -1), (-np.sin(yaw), np.cos(yaw), 0)
        matrix[:3, :3], matrix[:3, 3], matrix[3, 3] = np.stack([right, down, ahead], -1), (x, y, 0), 1
    rows = planar_rows(poses[:-1], poses[1:])
    assert rows == pytest.approx(rows_from_trajectory(matrices), abs=1e-6)
    seen = trajectory_from_rows(rows)
    plane = planar_trajectory(rows)
    assert plane[:, :2] == pytest.approx(seen[:, [0, 2], 3], abs=1e-5)
    assert np.sin(plane[:, 2]) == pytest.approx(seen[:, 0, 2], abs=1e-5)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_the_expert_does_what_it_is_told(simulator: Simulator, name: str) -> None:
    simulator.reset(200_001, s=40.0, lateral=-4.5, askew=0.4, speed=9.0)
    expert, at = Expert(simulator.track), np.array([40.0])
    what = np.array([behaviour_index(name)])
    laterals, speeds = [], []
    for _ in range(500):
        curvature, speed, at, lateral = expert.command(simulator.pose()[None], at, what)
        simulator.drive(float(curvature[0]), float(speed[0]))
        laterals.append(lateral[0])
        speeds.append(simulator.speed())
    late = np.array(laterals[200:])
    if name == "stop":
        assert np.abs(speeds[100:]).max() < 0.05 and abs(late[-1]) < HALF_WIDTH_M
    else:
        assert np.abs(late - LATERAL_M[name]).max() < 1.0
        assert max(speeds[200:]) < SPEED_M_S[name] + 0.5 and at[0] > 60


def test_plans(simulator: Simulator) -> None:
    simulator.reset(200_002, s=10.0)
    expert = Expert(simulator.track)
    plans = expert.plan(np.tile(simulator.pose(), (4, 1)), np.arange(4))
    assert plans.dtype == np.float32 and plans.shape == (4, ROWS, 9)
    assert np.allclose(plans[3], IDENTITY)
    ends = [planar_trajectory(plan)[-1] for plan in plans]
    assert ends[0][0] < -1.5 and ends[1][0] > 1.5 and ends[2][1] == pytest.approx(0.5 * ROWS, abs=0.3)
    # Together or alone, a plan is the same
    assert np.array_equal(plans[1], expert.plan(simulator.pose()[None], [1], np.array([10.0]))[0])


def test_a_plan_leads_back_onto_the_road(simulator: Simulator) -> None:
    simulator.reset(200_003, s=10.0, lateral=8.0, askew=-0.3)
    plan = Expert(simulator.track).plan(simulator.pose()[None], [1])[0]
    way = planar_trajectory(plan)
    x, y, yaw = simulator.pose()
    world = np.array([x, y]) + way[:, :1] * [np.cos(yaw), np.sin(yaw)] + way[:, 1:2] * [-np.sin(yaw), np.cos(yaw)]
    _, lateral = simulator.track.project(world)
    assert lateral[0] == pytest.approx(8.0, abs=0.1) and lateral[-1] < 4.5


def test_the_picture(simulator: Simulator) -> None:
    simulator.reset(200_004, s=30.0)
    first = simulator.picture()
    assert first.shape == (96, 96, 3) and first.dtype == np.uint8 and np.array_equal(first, simulator.picture())
    red = (first[..., 0] > 150) & (first[..., 1] < 60)
    # Kerbs elsewhere are red and white
    rows, columns = np.nonzero(red[62:82, 40:56]) + np.array([[62], [40]])
    assert abs(rows.mean() - 72) < 2 and abs(columns.mean() - 47.5) < 1
    gray = np.abs(first.astype(int) - 102).max(-1) < 3
    # 13.3 m of road at 0.5 m a pixel
    assert 24 <= gray[60].sum() + (first[60].min(-1) > 150).sum() <= 29
    # Beside the road its middle is on the other side
    simulator.reset(200_004, s=30.0, lateral=4.0)
    moved = np.abs(simulator.picture().astype(int) - 102).max(-1) < 3
    assert np.nonzero(moved[60])[0].mean() - np.nonzero(gray[60])[0].mean() == pytest.approx(-8, abs=1.5)


def test_the_picture_does_not_tell_the_speed(simulator: Simulator) -> None:
    simulator.reset(200_005, s=30.0, speed=0.0)
    standing = simulator.picture()
    simulator.reset(200_005, s=30.0, speed=12.0)
    assert np.array_equal(standing, simulator.picture())


def test_a_seed_is_a_road(simulator: Simulator) -> None:
    simulator.reset(200_006)
    first = simulator.track.points
    simulator.reset(200_007)
    assert len(first) != len(simulator.track.points) or not np.allclose(first, simulator.track.points)
    simulator.reset(200_006)
    assert np.array_equal(first, simulator.track.points)


def test_it_is_not_driven_by_nan(simulator: Simulator) -> None:
    simulator.reset(200_006)
    with pytest.raises(ContractError, match="driven"):
        simulator.drive(float("nan"), 1.0)


def test_instructions() -> None:
    assert len(TASKS) == len(set(TASKS)) and not set(TASKS) & set(HELD_OUT.values())
    assert all(behaviour_of(text) == name for name in BEHAVIOURS for text in (*TRAINED[name], HELD_OUT[name]))
    with pytest.raises(DataError, match="did you mean"):
        behaviour_of(CANONICAL["left"].replace("left", "lift"))
    with pytest.raises(UsageError, match="unknown behaviour"):
        behaviour_index("lefft")


def test_this_is_the_simulator_that_the_figures_are_of() -> None:
    versions.check_versions()
    versions.check_behaviour()


def test_another_simulator_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(versions, "PINNED", {**versions.PINNED, "gymnasium": "0.29.1"})
    with pytest.raises(HostError, match=r"pip install gymnasium==0\.29\.1"):
        versions.check_versions()
    monkeypatch.setattr(versions, "PINNED", {**versions.PINNED, "no-such-simulator": "1"})
    with pytest.raises(MissingPackageError, match="no-such-simulator"):
        versions.check_versions()
    golden = json.loads(versions.GOLDEN.read_text())
    golden["poses"][-1][0] += 0.5
    monkeypatch.setattr(versions, "GOLDEN", tmp_path / "golden.json")
    versions.GOLDEN.write_text(json.dumps(golden))
    with pytest.raises(HostError, match=r"behaves differently: poses[\s\S]*0\.5 off"):
        versions.check_behaviour()
