"""Errors in the actions' own units, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from motedge.bench.action_error import action_error
from motedge.errors import InternalError

FIELDS, UNITS = ("a", "grip", "b"), ("rad", "closed", "rad")


def test_by_hand() -> None:
    right = np.zeros((2, 2, 3))
    right[:, 1] = (3.0, 1.0, 4.0)
    own = right.copy()
    own[0, 1, 2] += 0.4
    own[1, 0, 1] -= 0.5
    found = action_error(own, right, FIELDS, UNITS)
    rad, closed = found.groups
    assert (rad.unit, rad.fields) == ("rad", ("a", "b")) and closed.fields == ("grip",)
    assert rad.max == pytest.approx(0.4) and rad.rms == pytest.approx(0.4 / np.sqrt(8))
    assert closed.max == pytest.approx(0.5) and closed.rms == pytest.approx(0.25)
    # Within a chunk, of the column that moves most
    assert rad.reference_span == 4 and closed.reference_span == 1
    assert found.relative_l2 == pytest.approx(np.sqrt(0.16 + 0.25) / np.sqrt(2 * 26))
    assert found.by_observation == pytest.approx((0.4 / np.sqrt(26), 0.5 / np.sqrt(26)))


def test_itself_and_zero() -> None:
    right = np.ones((1, 2, 3), np.float32)
    same = action_error(right, right, FIELDS, UNITS)
    assert same.relative_l2 == 0 and all(group.max == 0 for group in same.groups)
    assert action_error(right, 0 * right, FIELDS, UNITS).relative_l2 is None


def test_other_shapes_are_a_bug() -> None:
    with pytest.raises(InternalError, match=r"\(1, 2, 3\)"):
        action_error(np.ones((1, 2, 3)), np.ones((1, 1, 3)), FIELDS, UNITS)
