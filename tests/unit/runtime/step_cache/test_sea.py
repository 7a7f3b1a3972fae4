"""SeaCache's filter against diffusers', and its rule step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.runtime.step_cache.sea import SeaIndicator, SeaRule, filtered


@pytest.mark.parametrize("shape", [(48, 1, 5, 6), (2, 3, 4, 7), (4, 9, 12, 11)])
@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.5, 0.937, 1.0])
def test_filter_equals_diffusers(shape: tuple[int, ...], sigma: float) -> None:
    torch = pytest.importorskip("torch")
    sea_cache = pytest.importorskip("diffusers.hooks.sea_cache")
    latent = np.random.RandomState(3).standard_normal(shape).astype(np.float32)
    expected = sea_cache._apply_sea_filter(torch.from_numpy(latent).movedim(0, -1), sigma, 3.0).movedim(-1, 0)
    scale = float(expected.abs().max())
    np.testing.assert_allclose(filtered(latent, sigma) / scale, expected.numpy() / scale, rtol=0, atol=2e-6)


def test_fine_detail_counts_the_less_the_more_noise_there_is() -> None:
    rows, columns = np.mgrid[:16, :16]
    fine = ((-1.0) ** (rows + columns))[None, None].astype(np.float32)
    coarse = np.cos(2 * np.pi * rows / 16)[None, None].astype(np.float32)
    passed = [np.abs(filtered(fine, sigma)).max() / np.abs(filtered(coarse, sigma)).max() for sigma in (0.1, 0.5, 0.9)]
    assert 1 > passed[0] > passed[1] > passed[2]


def test_the_rule_adds_up_and_starts_anew() -> None:
    """A growing constant: each step changes it by 1 / k."""
    rule = SeaRule(0.5, 8)
    values = [np.full((1, 1, 1, 1), 10 * 1.2**k, np.float32) for k in range(8)]
    decided = [rule.computes(k, value) for k, value in enumerate(values)]
    assert decided == [True, False, False, True, False, False, True, True]


def test_the_first_look_is_computed_whatever_the_step() -> None:
    rule = SeaRule(1e9, 6)
    same = np.ones((1, 1, 1, 1), np.float32)
    assert [rule.computes(k, same) for k in (2, 3, 4, 5)] == [True, False, False, True]


@given(st.integers(1, 12), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_threshold_zero_computes_all(steps: int, seed: int) -> None:
    random = np.random.RandomState(seed)
    rule = SeaRule(0.0, steps)
    for k in range(steps):
        assert rule.computes(k, random.standard_normal((1, 2, 2, 2)).astype(np.float32))


def test_the_indicator_is_made_once_a_step() -> None:
    vision = np.ones((2, 2, 3, 4), np.float32)
    indicator = SeaIndicator(vision)
    first = indicator.at(0, 999)
    vision *= 2
    assert indicator.at(0, 999) is first
    np.testing.assert_allclose(indicator.at(1, 999), 2 * first, rtol=1e-5)
