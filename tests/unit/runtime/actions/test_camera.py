"""Projection of points and trajectories: hand-made cases, properties, and a real trajectory where there is one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motedge.errors import ContractError, UsageError
from motedge.runtime.actions.camera import LENSES, Camera, pitch_from_motion, road_strip
from motedge.runtime.actions.poses import pose_from_parts, rows_from_trajectory, trajectory_from_rows
from motedge.runtime.actions.rotations import matrix_from_euler_xyz

ROOT = Path(__file__).resolve().parents[4]
REAL_DATA = Path(os.environ.get("MOTEDGE_REAL_DATA", str(ROOT.parent / "shared" / "data")))
TRAJECTORY = REAL_DATA / "av_traj_left.json"


def along_road(pitch_rad: float, turn_rad: float, steps: int = 20) -> np.ndarray:
    """Poses of a camera turned down by a pitch on a car that drives a circle, seen from frame 0."""
    heading = -turn_rad * np.arange(steps + 1)
    ahead = np.stack([np.sin(heading), np.zeros(steps + 1), np.cos(heading)], axis=-1)
    place = np.concatenate([np.zeros((1, 3)), np.cumsum(ahead[:-1], axis=0)])
    car = pose_from_parts(place, matrix_from_euler_xyz(np.stack([0 * heading, heading, 0 * heading], axis=-1)))
    mounted = pose_from_parts([0, 0, 0], matrix_from_euler_xyz([-pitch_rad, 0, 0]))
    return trajectory_from_rows(rows_from_trajectory(car @ mounted))


@pytest.mark.parametrize("lens", LENSES)
def test_axis_and_edges(lens: str) -> None:
    camera = Camera.from_field_of_view(832, 480, 90, lens)
    seen, front = camera.project([[0, 0, 5], [5, 0, 5], [-5, 0, 5], [0, 1, 0.1], [0, 0, -5]])
    np.testing.assert_allclose(seen[:3], [[415.5, 239.5], [831.5, 239.5], [-0.5, 239.5]], atol=1e-9)
    assert front.tolist() == [True, True, True, False, False]
    assert np.isnan(seen[3:]).all()


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(1, 50), st.floats(0.5, 20))
def test_a_point_stands_where_its_ray_does(x: float, y: float, z: float, further: float) -> None:
    for lens in LENSES:
        camera = Camera.from_field_of_view(640, 360, 100, lens)
        seen, _ = camera.project(np.array([[x, y, z], [x * further, y * further, z * further]]))
        if z * further >= 0.5:
            np.testing.assert_allclose(seen[0], seen[1], atol=1e-6)


@given(st.floats(0.001, 1.3), st.floats(-np.pi, np.pi))
def test_an_equidistant_lens_measures_angles(angle: float, around: float) -> None:
    camera = Camera(640, 360, (300.0, 300.0), (320.0, 180.0), "equidistant")
    point = [np.sin(angle) * np.cos(around), np.sin(angle) * np.sin(around), np.cos(angle)]
    seen, front = camera.project([[4 * c for c in point]])
    assert front[0]
    np.testing.assert_allclose(np.hypot(*(seen[0] - [320, 180])), 300 * angle, atol=1e-6)


@given(st.floats(-0.3, 0.3), st.floats(-0.1, 0.1))
def test_pitch_shows_in_the_motion(pitch: float, turn: float) -> None:
    """On a circle the way to the next pose leaves the axis by half the turn, which the pitch is not mistaken for."""
    assert pitch_from_motion(along_road(pitch, 0.0)) == pytest.approx(pitch, abs=1e-5)
    assert pitch_from_motion(along_road(pitch, turn)) == pytest.approx(pitch, abs=1e-5)


def test_reversing_turns_no_camera_up() -> None:
    way = along_road(0.06, 0.01)[::-1]
    assert pitch_from_motion(np.linalg.inv(way[0]) @ way) == pytest.approx(0.06, abs=1e-5)


def test_who_stands_still_has_no_pitch() -> None:
    assert pitch_from_motion(np.tile(np.eye(4), (3, 1, 1))) == 0


@given(st.floats(-0.3, 0.3), st.floats(-0.1, 0.1))
def test_the_strip_lies_on_the_road(pitch: float, turn: float) -> None:
    strip = road_strip(along_road(pitch, turn), height_m=1.5, track_m=1.6, pitch_rad=pitch)
    down = matrix_from_euler_xyz([-pitch, 0, 0]).T @ [0, 1, 0]
    np.testing.assert_allclose(strip @ down, 1.5, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(strip[:, 1] - strip[:, 0], axis=-1), 1.6, atol=1e-5)


def test_straight_road_vanishes_at_the_horizon() -> None:
    strip = road_strip(along_road(0.05, 0.0, 3000), pitch_rad=0.05)
    camera = Camera.from_field_of_view(832, 480, 90)
    seen, front = camera.project(strip.reshape(-1, 3))
    assert front[-2:].all()
    horizon = 239.5 - 416 * np.tan(0.05)
    np.testing.assert_allclose(seen[-2:], [[415.5, horizon]] * 2, atol=0.5)


@pytest.mark.skipif(not TRAJECTORY.is_file(), reason="no av_traj_left.json; name its folder with MOTEDGE_REAL_DATA")
def test_a_real_trajectory_turns_left() -> None:
    rows = np.array(json.loads(TRAJECTORY.read_text()), np.float32)
    way = trajectory_from_rows(rows)
    np.testing.assert_allclose(rows_from_trajectory(way), rows, atol=1e-4)
    assert 0 < np.degrees(pitch_from_motion(way)) < 3
    strip = road_strip(way, pitch_rad=pitch_from_motion(way))
    camera = Camera.from_field_of_view(832, 480, lens="equidistant")
    seen, front = camera.project(strip.mean(axis=1))
    inside = seen[front & (seen[:, 1] < 480)]
    # Below the horizon, and to the left as it goes on
    assert len(inside) > 20 and (inside[:, 1] > 235).all()
    assert (np.diff(inside[:, 0]) < 0).all() and inside[-1, 0] < 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Camera.from_field_of_view(832, 480, 180), "0 to 180 degrees"),
        (lambda: Camera.from_field_of_view(832, 480, 0), "0 to 180 degrees"),
        (lambda: Camera.from_field_of_view(0, 480, 90), "focal lengths above 0|at least 1 x 1"),
        (lambda: Camera(8, 8, (1.0, np.nan), (4.0, 4.0)), "focal lengths above 0"),
        (lambda: Camera(8, 8, (1.0, 1.0), (4.0, 4.0), "pin"), "did you mean 'pinhole'"),
        (lambda: road_strip(np.tile(np.eye(4), (2, 1, 1)), height_m=0), "height_m is wrong"),
        (lambda: road_strip(np.tile(np.eye(4), (2, 1, 1)), track_m=np.nan), "track_m is wrong"),
        (lambda: road_strip(np.tile(np.eye(4), (2, 1, 1)), pitch_rad=2.0), "less than a right angle"),
    ],
)
def test_wrong_cameras(call, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_wrong_points() -> None:
    camera = Camera.from_field_of_view(832, 480, 90)
    for points in ([1, 2, 3], [[1, 2]], [[1, 2, np.nan]]):
        with pytest.raises(ContractError, match="these are no points"):
            camera.project(points)
    with pytest.raises(ContractError, match="no trajectory"):
        pitch_from_motion(np.eye(4)[None])
    with pytest.raises(ContractError, match="no trajectory"):
        road_strip(np.eye(4))
