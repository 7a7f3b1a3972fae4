"""The action chunk's error against a plain computation, in the robot's units."""

from __future__ import annotations

import numpy as np
import pytest

from motedge.quant.fidelity.chunk import chunk_error
from motedge.runtime.policy.embodiments import find_embodiment

DROID = find_embodiment("droid_lerobot")


def _pair(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    reference = random.randn(3, 6, 64).astype(np.float32)
    return (reference + 0.01 * random.randn(*reference.shape)).astype(np.float32), reference


def test_errors_by_joint_and_row() -> None:
    own, reference = _pair()
    found = chunk_error(own, reference, DROID)
    told = [rows[:, 1:, :8].copy() for rows in (own, reference)]
    for rows in told:
        # The robot is told the fraction closed, in fp32
        rows[..., 7] = np.float32(1) - rows[..., 7]
    error = np.abs(told[0].astype(np.float64) - told[1])
    assert len(found.rows) == 5 and all(len(row) == 8 for row in found.rows)
    np.testing.assert_allclose(found.rows, error.mean(0), atol=1e-7)
    np.testing.assert_allclose(found.rows_max, error.max(0), atol=1e-7)
    for index, joint in enumerate(found.joints):
        assert joint.mean_abs == pytest.approx(error[:, :, index].mean(), abs=1e-7)
        assert joint.max_abs == pytest.approx(error[:, :, index].max(), abs=1e-7)
        assert joint.reference_span == pytest.approx(np.ptp(reference[:, 1:, index]), abs=1e-6)
    assert [joint.unit for joint in found.joints] == ["rad"] * 7 + ["fraction closed"]
    assert found.overall.elements == 3 * 5 * 8


def test_the_state_row_and_unused_channels_do_not_count() -> None:
    own, reference = _pair()
    before = chunk_error(own, reference, DROID)
    own[:, 0], own[:, :, 8:] = 100.0, 100.0
    assert chunk_error(own, reference, DROID) == before


def test_the_gripper_is_measured_as_fraction_closed() -> None:
    """The model counts it as open: a reference of 1 is 0 closed, so any other value is infinitely far of it."""
    reference = np.zeros((1, 2, 64), np.float32)
    reference[..., 7] = 1.0
    own = reference.copy()
    own[..., 7] = 0.75
    found = chunk_error(own, reference, DROID)
    assert found.joints[7].max_abs == 0.25 and found.overall.relative_l2 is None


def test_what_is_not_finite_is_said_and_not_averaged_away() -> None:
    own, reference = _pair()
    own[1, 3, 2] = np.nan
    found = chunk_error(own, reference, DROID)
    assert found.joints[2].mean_abs is None and found.joints[2].max_abs is None
    assert found.rows[2][2] is None and found.rows_max[2][2] is None and found.rows[2][1] is not None
    assert found.joints[1].mean_abs is not None and found.overall.non_finite == 1
