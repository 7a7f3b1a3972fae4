from __future__ import annotations

import math

import numpy as np
import pytest

from motedge.errors import BundleError
from motedge.runtime.comparison import DEFAULT_GATES, Gate, compare

GATE = DEFAULT_GATES["fp32"]


def test_figures() -> None:
    a, b = np.float32([3, 4]), np.float32([4, 3])
    result = compare("x", a, b)
    assert result.cosine == pytest.approx(24 / 25)
    assert result.relative_l2 == pytest.approx(math.sqrt(2) / 5)
    assert result.max_abs_error == 1
    assert result.elements == 2
    assert not result.passes(GATE)


def test_equal_passes() -> None:
    a = np.random.RandomState(0).standard_normal((3, 4)).astype(np.float32)
    assert compare("x", a, a).passes(GATE)
    assert compare("x", a * np.float32(1 + 1e-5), a).passes(GATE)
    assert not compare("x", a * np.float32(1.01), a).passes(GATE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_non_finite_never_passes(value, side) -> None:
    pair = [np.ones(4, np.float32), np.ones(4, np.float32)]
    pair[side][2] = value
    result = compare("x", *pair)
    assert result.non_finite == 1
    assert not result.passes(Gate(cosine=-1.0, relative_l2=1e30))


def test_zeros() -> None:
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    assert compare("x", zero, zero).passes(GATE)
    assert compare("x", one, zero).relative_l2 == math.inf
    assert not compare("x", one, zero).passes(GATE)
    assert compare("x", zero, one).cosine == 0


def test_fp16_results_are_compared_in_fp64() -> None:
    assert compare("x", np.full(9, 60000, np.float16), np.full(9, 60000, np.float32)).max_abs_error == 0


def test_another_shape_is_a_damaged_sample() -> None:
    with pytest.raises(BundleError, match="another shape"):
        compare("x", np.zeros(3), np.zeros((3, 1)))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"cosine": 0.9, "relative_l3": 1}, "did you mean 'relative_l2'"),
        ({"cosine": 0.9}, "lacks a number"),
        ({"cosine": "high", "relative_l2": 1}, "lacks a number"),
        ({"cosine": float("nan"), "relative_l2": 1}, "not a number"),
    ],
)
def test_damaged_gates(raw, message) -> None:
    with pytest.raises(BundleError, match=message):
        Gate.from_dict(raw)
