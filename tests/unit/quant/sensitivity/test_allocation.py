from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import UsageError
from motedge.quant.sensitivity.allocation import Option, allocate, hull

_NUMBER = st.integers(0, 60).map(float)
_SITES = st.lists(st.lists(st.builds(Option, _NUMBER, _NUMBER), min_size=1, max_size=4), min_size=1, max_size=5)


def _sum(sites: list[list[Option]], chosen: list[int]) -> tuple[float, float]:
    options = [site[number] for site, number in zip(sites, chosen, strict=True)]
    return sum(o.price for o in options), sum(o.weight for o in options)


def _best(sites: list[list[Option]], limit: float) -> float:
    """By trying everything."""
    every = itertools.product(*(range(len(site)) for site in sites))
    sums = (_sum(sites, list(chosen)) for chosen in every)
    return min(price for price, weight in sums if weight <= limit)


@settings(max_examples=150, deadline=None)
@given(_SITES)
def test_every_mixture_on_the_hull_is_the_best_of_its_size(sites: list[list[Option]]) -> None:
    for chosen in hull(sites):
        price, weight = _sum(sites, chosen)
        assert price == _best(sites, weight)


@settings(max_examples=150, deadline=None)
@given(_SITES, st.floats(0, 1))
def test_between_hull_points_it_keeps_the_limit_and_lies_within_one_step_of_the_optimum(
    sites: list[list[Option]], share: float
) -> None:
    least = sum(min(o.weight for o in site) for site in sites)
    # Quarters: no rounding between a limit and a sum
    limit = round(4 * (least + share * (sum(max(o.weight for o in site) for site in sites) - least))) / 4
    price, weight = _sum(sites, allocate(sites, limit))
    assert weight <= limit + 1e-9
    largest_step = max(max(o.price for o in site) - min(o.price for o in site) for site in sites)
    assert _best(sites, limit) <= price <= _best(sites, limit) + largest_step


def test_it_is_near_the_optimum_on_instances_like_a_towers() -> None:
    """Three schemes a site, costs over four decades: within 1 % of the best of all mixtures on average."""
    generator = random.Random(3)
    ratios = []
    for _ in range(40):
        sites = []
        for _ in range(8):
            size, cost = generator.choice((1, 2, 4)), 10 ** generator.uniform(-4, 0)
            sites.append([Option(0.0, 16.0 * size), Option(cost, 8.0 * size), Option(cost * 13, 4.5 * size)])
        limit = generator.uniform(5, 12) * sum(site[0].weight for site in sites) / 16
        ratios.append(_sum(sites, allocate(sites, limit))[0] / _best(sites, limit))
    assert sum(ratios) / len(ratios) < 1.01
    assert max(ratios) < 1.15


def test_a_limit_that_nothing_meets_names_the_least() -> None:
    with pytest.raises(UsageError, match="no mixture meets the target") as caught:
        allocate([[Option(1, 3), Option(0, 5)], [Option(0, 4)]], 6.5)
    assert "7" in str(caught.value.expected)


def test_a_limit_that_is_met_exactly_is_met() -> None:
    sites = [[Option(1, 0.1), Option(0, 0.3)]] * 3
    assert allocate(sites, 0.1 + 0.1 + 0.3) == [0, 0, 1] or sum(allocate(sites, 0.5)) == 1


def test_an_option_that_costs_more_for_more_is_never_taken() -> None:
    assert allocate([[Option(1, 1), Option(2, 2), Option(0.5, 3)]], 2) == [0]
