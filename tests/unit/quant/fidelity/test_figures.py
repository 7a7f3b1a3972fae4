"""Error figures against numpy, whole and piece by piece, and the values that have no finite figure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.quant.fidelity.figures import ErrorSum, Figures, figures_of
from motedge.quant.fidelity.words import decibels, relative
from motedge.runtime.comparison import Gate

GATE = Gate(0.999, 0.03)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.floats(1e-6, 2.0))
def test_pieces_add_up_to_what_numpy_says_of_the_whole(seed: int, pieces: int, level: float) -> None:
    random = np.random.RandomState(seed)
    reference = random.randn(60).astype(np.float32)
    result = (reference + level * random.randn(60)).astype(np.float32)
    total = ErrorSum()
    for a, b in zip(np.array_split(result, pieces), np.array_split(reference, pieces), strict=True):
        total.add(a, b)
    a, b = result.astype(np.float64), reference.astype(np.float64)
    figures = total.figures()
    assert figures.elements == 60 and figures.non_finite == 0
    assert figures.relative_l2 == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-9)
    assert figures.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-9)
    assert figures.sqnr_db == pytest.approx(10 * np.log10((b**2).mean() / ((a - b) ** 2).mean()), rel=1e-9)
    assert figures.max_abs == np.abs(a - b).max()


def test_no_error_at_all() -> None:
    figures = figures_of(np.ones(4), np.ones(4))
    assert (figures.relative_l2, figures.sqnr_db) == (0.0, None) and figures.cosine == pytest.approx(1.0)
    assert figures.passes(GATE) and decibels(figures) == "no error" and relative(figures.relative_l2) == "0 %"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_one_value_that_is_not_finite_spoils_the_whole(bad: float, side: int) -> None:
    total = ErrorSum()
    total.add(np.ones(4), np.ones(4))
    sides = [np.ones(4), np.ones(4)]
    sides[side][2] = bad
    total.add(*sides)
    figures = total.figures()
    assert figures == Figures(None, None, None, None, 8, 1)
    assert not figures.passes(Gate(-1.0, 1e9)) and decibels(figures) == relative(figures.relative_l2) == "not finite"


def test_against_zeros_only_zeros_are_near() -> None:
    assert figures_of(np.zeros(3), np.zeros(3)).passes(GATE)
    far = figures_of(np.ones(3), np.zeros(3))
    assert far.relative_l2 is None and not far.passes(GATE) and decibels(far) == "not finite"


def test_both_bounds_of_a_gate_count() -> None:
    assert Figures(0.03, 0.999, 30.0, 1.0, 9).passes(GATE)
    assert not Figures(0.0301, 0.999, 30.0, 1.0, 9).passes(GATE)
    assert not Figures(0.03, 0.9989, 30.0, 1.0, 9).passes(GATE)


@pytest.mark.parametrize(
    ("value", "words"), [(0.0312, "3.12 %"), (0.069, "6.90 %"), (1.0, "100 %"), (0.00000123, "0.000123 %")]
)
def test_relative_errors_in_words(value: float, words: str) -> None:
    assert relative(value) == words
