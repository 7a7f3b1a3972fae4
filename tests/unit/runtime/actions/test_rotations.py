"""Rotations against scipy and against what cosmos-framework computes; input that is no rotation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motedge.errors import ContractError, UsageError
from motedge.runtime.actions.rotations import (
    check_rotation,
    matrix_from_euler_xyz,
    matrix_from_quaternion,
    matrix_from_rot6d,
    rot6d_from_matrix,
)

Rotation = pytest.importorskip("scipy.spatial.transform").Rotation
VECTORS = json.loads((Path(__file__).resolve().parents[3] / "data" / "action_vectors.json").read_text())["poses"]
seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_matrices_equal_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    quaternions, angles = rng.standard_normal((5, 4)), rng.uniform(-np.pi, np.pi, (5, 3))
    np.testing.assert_allclose(
        matrix_from_quaternion(quaternions), Rotation.from_quat(quaternions).as_matrix(), atol=1e-13
    )
    np.testing.assert_allclose(
        matrix_from_euler_xyz(angles), Rotation.from_euler("xyz", angles).as_matrix(), atol=1e-13
    )


@given(seeds, st.sampled_from(["gram-schmidt", "nearest"]))
def test_six_numbers_there_and_back(seed: int, rule: str) -> None:
    matrices = Rotation.random(7, random_state=seed).as_matrix()
    numbers = rot6d_from_matrix(matrices)
    np.testing.assert_array_equal(numbers[:, :3], matrices[:, :, 0])
    np.testing.assert_array_equal(numbers[:, 3:], matrices[:, :, 1])
    np.testing.assert_allclose(matrix_from_rot6d(numbers, rule), matrices, atol=1e-13)


@given(seeds, st.floats(0.01, 0.3), st.sampled_from(["gram-schmidt", "nearest"]))
def test_what_a_model_writes_becomes_a_rotation(seed: int, noise: float, rule: str) -> None:
    rng = np.random.default_rng(seed)
    numbers = rot6d_from_matrix(Rotation.random(4, random_state=rng).as_matrix()) + rng.normal(0, noise, (4, 6))
    made = matrix_from_rot6d(numbers, rule)
    np.testing.assert_allclose(made @ np.swapaxes(made, -1, -2), np.broadcast_to(np.eye(3), made.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(made), 1, atol=1e-12)
    if rule == "gram-schmidt":
        first = numbers[:, :3] / np.linalg.norm(numbers[:, :3], axis=-1, keepdims=True)
        np.testing.assert_allclose(made[..., 0], first, atol=1e-12)


@given(seeds)
def test_nearest_is_what_scipy_calls_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((2, 3))
    raw = np.stack([first, second, np.cross(first, second)], axis=-1)
    expected = Rotation.from_matrix(raw).as_matrix()
    np.testing.assert_allclose(matrix_from_rot6d(np.concatenate([first, second]), "nearest"), expected, atol=1e-6)


def test_matrices_equal_those_of_the_framework() -> None:
    """Stored in fp32 there, from fp32 angles."""
    for name, make in (("euler_xyz", matrix_from_euler_xyz), ("quat_xyzw", matrix_from_quaternion)):
        stored = np.array(VECTORS["from_euler" if name == "euler_xyz" else "from_quat"])[:, :3, :3]
        np.testing.assert_allclose(make(VECTORS[name]), stored, atol=2e-7)


@pytest.mark.parametrize(
    "numbers", [np.zeros(6), [1, 0, 0, 0, 0, 0], [1, 2, 3, 2, 4, 6], [1, 2, 3, -1, -2, -3]], ids=str
)
def test_degenerate_columns(numbers) -> None:
    with pytest.raises(ContractError, match="neither zero nor parallel"):
        matrix_from_rot6d(numbers)


def test_degenerate_row_is_named() -> None:
    rows = np.tile([1.0, 0, 0, 0, 1, 0], (3, 1))
    rows[2, 3:] = rows[2, :3]
    with pytest.raises(ContractError, match=r"row \[2\] is no rotation"):
        matrix_from_rot6d(rows)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: matrix_from_rot6d(np.zeros(5)), "wrong shape"),
        (lambda: matrix_from_rot6d(np.float64(1)), "wrong shape"),
        (lambda: matrix_from_rot6d([1, 0, 0, 0, np.nan, 0]), "NaN or infinity"),
        (lambda: matrix_from_quaternion([0, 0, 0, 0]), "quaternion is zero"),
        (lambda: matrix_from_euler_xyz([0, np.inf, 0]), "NaN or infinity"),
        (lambda: check_rotation(np.eye(4)), "wrong shape"),
        (lambda: check_rotation(np.full((3, 3), np.nan)), "NaN or infinity"),
        (lambda: check_rotation(np.diag([1.0, 1, -1])), "a reflection"),
        (lambda: rot6d_from_matrix(np.eye(3) * 1.01), "off by 0.0201"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        call()


def test_unknown_rule() -> None:
    with pytest.raises(UsageError, match="did you mean 'nearest'"):
        matrix_from_rot6d([1, 0, 0, 0, 1, 0], "nearst")
