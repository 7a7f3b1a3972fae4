"""Poses and trajectories: round trips, composition, and the framework's own numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motedge.errors import ContractError
from motedge.runtime.actions.poses import (
    check_pose,
    invert_pose,
    pose_from_parts,
    pose_from_row,
    row_from_pose,
    rows_from_trajectory,
    trajectory_from_rows,
)
from motedge.runtime.actions.rotations import matrix_from_euler_xyz

Rotation = pytest.importorskip("scipy.spatial.transform").Rotation
VECTORS = json.loads((Path(__file__).resolve().parents[3] / "data" / "action_vectors.json").read_text())["poses"]
seeds = st.integers(0, 2**32 - 1)


def random_poses(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return pose_from_parts(rng.uniform(-3, 3, (count, 3)), Rotation.random(count, random_state=rng).as_matrix())


@given(seeds, st.integers(2, 61))
def test_trajectories_there_and_back(seed: int, count: int) -> None:
    poses = random_poses(seed, count)
    rows = rows_from_trajectory(poses)
    assert rows.shape == (count - 1, 9) and rows.dtype == np.float32
    # What fp32 rows lose: one rounding a row, carried on with the lever of the path
    np.testing.assert_allclose(trajectory_from_rows(rows, poses[0]), poses, atol=2e-6 * count)


@given(seeds)
def test_rows_do_not_depend_on_where_the_world_begins(seed: int) -> None:
    poses, world = random_poses(seed, 6), random_poses(seed + 1, 1)[0]
    np.testing.assert_allclose(rows_from_trajectory(world @ poses), rows_from_trajectory(poses), atol=2e-6)


@given(seeds)
def test_from_the_origin_everything_is_seen_from_frame_0(seed: int) -> None:
    poses = random_poses(seed, 6)
    seen = trajectory_from_rows(rows_from_trajectory(poses))
    np.testing.assert_allclose(seen, invert_pose(poses[0]) @ poses, atol=1e-5)


@given(seeds)
def test_inverse(seed: int) -> None:
    poses = random_poses(seed, 4)
    np.testing.assert_allclose(invert_pose(poses) @ poses, np.broadcast_to(np.eye(4), (4, 4, 4)), atol=1e-12)
    np.testing.assert_allclose(invert_pose(poses), np.linalg.inv(poses), atol=1e-12)


def test_a_step_forward_in_the_earlier_frame() -> None:
    """Turned left about the vertical, one metre along what is then forward: x right, y down, z forward."""
    left = matrix_from_euler_xyz([0, -np.pi / 2, 0])
    start, end = pose_from_parts([1, 2, 3], left), pose_from_parts([0, 2, 3], left)
    row = rows_from_trajectory(np.stack([start, end]))[0]
    np.testing.assert_allclose(row, [0, 0, 1, 1, 0, 0, 0, 1, 0], atol=1e-6)


def test_the_framework_computes_the_same() -> None:
    poses = pose_from_parts(VECTORS["xyz"], matrix_from_euler_xyz(VECTORS["euler_xyz"]))
    np.testing.assert_allclose(poses, VECTORS["from_euler"], atol=3e-7)
    # fp32 inverses there
    np.testing.assert_allclose(rows_from_trajectory(poses), VECTORS["rows"], atol=3e-6)
    for rule in ("nearest", "gram-schmidt"):
        made = trajectory_from_rows(np.float32(VECTORS["rows"]), VECTORS["from_euler"][0], rule)
        np.testing.assert_allclose(made, VECTORS["back"], atol=5e-6)


def test_what_is_not_orthonormal_is_decoded_as_in_the_framework() -> None:
    """By the nearest rotation; Gram-Schmidt makes other poses of it."""
    rows = np.float32(VECTORS["noisy_rows"])
    np.testing.assert_allclose(trajectory_from_rows(rows, rule="nearest"), VECTORS["noisy_trajectory"], atol=1e-5)
    assert np.abs(trajectory_from_rows(rows) - VECTORS["noisy_trajectory"]).max() > 1e-2


def test_single_poses() -> None:
    pose = random_poses(3, 1)[0]
    row = row_from_pose(pose)
    assert row.shape == (9,)
    np.testing.assert_allclose(pose_from_row(row), pose, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pose_from_row(np.zeros((4, 10))), "wrong width"),
        (lambda: pose_from_row(np.zeros((4, 9))), "no rotation"),
        (lambda: pose_from_row([np.nan, 0, 0, 1, 0, 0, 0, 1, 0]), "NaN or infinity"),
        (lambda: pose_from_parts(np.zeros((2, 3)), np.eye(3)), "do not belong together"),
        (lambda: pose_from_parts([0, 0, np.inf], np.eye(3)), "NaN or infinity"),
        (lambda: trajectory_from_rows([1, 0, 0, 1, 0, 0, 0, 1, 0]), r"\[T, 9\]"),
        (lambda: rows_from_trajectory(np.eye(4)[None]), "no trajectory"),
        (lambda: check_pose(np.eye(3)), "wrong shape"),
        (lambda: check_pose(np.full((4, 4), np.nan)), "NaN or infinity"),
        (lambda: check_pose(pose_from_parts([1, 2, 3], np.eye(3)).T), "transpose"),
        (lambda: check_pose(np.diag([2.0, 2, 2, 1])), "no rotations"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        call()
