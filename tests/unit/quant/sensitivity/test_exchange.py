from __future__ import annotations

import itertools

import numpy as np
import pytest

from motedge.quant.sensitivity.exchange import Entries, improve
from motedge.quant.sensitivity.sketch import SIZE, pack, sketch, unpack


def _instance(seed: int) -> Entries:
    """Seven sites of three options, "none" first, with errors that have something in common."""
    random = np.random.RandomState(seed)
    common, rows, site, size = random.randn(40), [], [], []
    for number in range(7):
        weights, strength = random.choice((1.0, 2.0)), 10 ** random.uniform(-2, 0)
        for bits, factor in ((16.0, 0.0), (8.0, 1.0), (4.5, 3.0)):
            rows.append(factor * strength * (random.randn(40) + random.randn() * common))
            site.append(number)
            size.append(weights * bits)
    vectors = np.stack(rows)
    return Entries.believed(np.array(site), np.array(size), vectors @ vectors.T)


@pytest.mark.parametrize("seed", range(12))
def test_it_keeps_the_size_and_comes_near_the_best_of_all(seed: int) -> None:
    entries = _instance(seed)
    limit = 9.0 * entries.size[::3].sum() / 16
    start = np.arange(7) * 3 + 2
    found = improve(entries, start, limit)
    assert entries.size[found].sum() <= limit and list(entries.site[found]) == list(range(7))
    energies = [
        entries.energy(chosen)
        for options in itertools.product(range(3), repeat=7)
        if entries.size[chosen := np.arange(7) * 3 + options].sum() <= limit
    ]
    assert min(energies) - 1e-12 <= entries.energy(found) <= 1.25 * min(energies)
    assert entries.energy(found) < entries.energy(start)


def test_energies_are_those_of_sums() -> None:
    """Every gain that is claimed is checked against the vectors themselves, without shrinking."""
    vectors = np.random.RandomState(0).randn(6, 5)
    entries = Entries(np.array([0, 0, 1, 1, 2, 2]), np.ones(6), vectors @ vectors.T)
    for options in itertools.product(range(2), repeat=3):
        chosen = np.arange(3) * 2 + options
        assert entries.energy(chosen) == pytest.approx(np.square(vectors[chosen].sum(0)).sum())
    best = min(
        itertools.product(range(2), repeat=3), key=lambda o: np.square(vectors[np.arange(3) * 2 + o].sum(0)).sum()
    )
    found = improve(entries, np.array([0, 2, 4]), 3.0)
    assert entries.energy(found) <= entries.energy(np.array([0, 2, 4]))
    assert entries.energy(found) >= entries.energy(np.arange(3) * 2 + np.array(best)) - 1e-12


def test_a_sketch_keeps_inner_products() -> None:
    random = np.random.RandomState(1)
    a, b = random.randn(200_000), random.randn(200_000)
    c = 0.5 * a + b
    sketches = [sketch(values) for values in (a, b, c)]
    assert all(values.size == SIZE for values in sketches)
    for x, y in itertools.combinations(range(3), 2):
        exact = float((a, b, c)[x] @ (a, b, c)[y])
        slack = 4 / 64 * np.linalg.norm((a, b, c)[x]) * np.linalg.norm((a, b, c)[y])
        assert abs(float(sketches[x] @ sketches[y]) - exact) < slack
    short = random.randn(100)
    np.testing.assert_array_equal(sketch(short), short)


def test_packing_rounds_to_half_precision() -> None:
    values = np.random.RandomState(2).randn(300) * 1e-7
    np.testing.assert_allclose(unpack(pack(values)), values, atol=1e-3 * np.abs(values).max())
    np.testing.assert_array_equal(unpack(pack(np.zeros(3))), np.zeros(3))
