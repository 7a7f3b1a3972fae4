"""One scheme for each site: the multiple-choice knapsack, by a Lagrangian sweep and repair.

Every site has a few options, each with two prices that add up over the sites: bytes, and error squared. Sweeping the
Lagrange multiplier visits the lower convex hull of all mixtures, and each mixture on the hull is the best of its size.
Between two of them the rest of the budget is filled by single changes and by exchanges of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from motedge.errors import UsageError

# Prices that are this close count as equal: what sums of floats can lose
_SLACK = 1e-12


@dataclass(frozen=True)
class Option:
    """One option of one site."""

    # What is minimised
    price: float
    # What is bounded
    weight: float


def allocate(sites: Sequence[Sequence[Option]], limit: float) -> list[int]:
    """Chooses an option for each site: least sum of prices with a sum of weights of at most `limit`.

    Optimal where the limit is the weight of a mixture on the convex hull, else within one site's step of it.

    Args:
        sites: the options of each site, at least one.
        limit: bound on the sum of weights.

    Returns:
        The number of the chosen option of each site.

    Raises:
        UsageError: even the lightest options are too heavy; `got` is their sum.
    """
    chosen = [min(range(len(options)), key=lambda i: (options[i].weight, options[i].price)) for options in sites]
    weight = sum(options[i].weight for options, i in zip(sites, chosen, strict=True))
    bound = limit + _SLACK * max(abs(limit), abs(weight))
    if weight > bound:
        raise UsageError("no mixture meets the target", expected=f"at least {weight:.6g}", got=f"{limit:.6g}")
    for site, option in _hull_steps(sites, chosen):
        step = sites[site][option].weight - sites[site][chosen[site]].weight
        if weight + step > bound:
            break
        weight += step
        chosen[site] = option
    return _repaired(sites, chosen, bound)


def hull(sites: Sequence[Sequence[Option]]) -> list[list[int]]:
    """Every mixture on the convex hull, from the lightest to the cheapest."""
    chosen = [min(range(len(options)), key=lambda i: (options[i].weight, options[i].price)) for options in sites]
    mixtures = [list(chosen)]
    for site, option in _hull_steps(sites, chosen):
        chosen[site] = option
        mixtures.append(list(chosen))
    return mixtures


def _hull_steps(sites: Sequence[Sequence[Option]], start: Sequence[int]) -> list[tuple[int, int]]:
    """(site, option) in the order of falling gain: what the sweep of the multiplier changes, one after another."""
    steps = []
    for site, (options, first) in enumerate(zip(sites, start, strict=True)):
        current = first
        for rank, option in enumerate(_lower_hull(options, first)):
            more = options[option].weight - options[current].weight
            gain = (options[current].price - options[option].price) / more
            steps.append((-gain, site, rank, option))
            current = option
    # Along a site's hull the gain falls, so sorting keeps a site's steps in order; rank settles equal gains
    return [(site, option) for _, site, _, option in sorted(steps)]


def _lower_hull(options: Sequence[Option], first: int) -> list[int]:
    """Options after `first` on the lower convex hull of (weight, price), prices falling."""
    found: list[int] = []
    current = first
    while True:
        gains = {
            i: (options[current].price - option.price) / (option.weight - options[current].weight)
            for i, option in enumerate(options)
            if option.weight > options[current].weight and option.price < options[current].price
        }
        if not gains:
            return found
        # Of equal gains the longest step: the points between lie on the same line
        current = max(gains, key=lambda i: (gains[i], options[i].weight))
        found.append(current)


def _repaired(sites: Sequence[Sequence[Option]], start: Sequence[int], bound: float) -> list[int]:
    """Uses what the sweep left of the budget: the best single change or exchange of two sites, until none helps."""
    chosen = list(start)
    for _ in range(len(sites) * max(map(len, sites), default=0)):
        weight = sum(options[i].weight for options, i in zip(sites, chosen, strict=True))
        moves = _moves(sites, chosen)
        best = _best_exchange(moves, bound - weight)
        if best is None:
            return chosen
        for site, option in best:
            chosen[site] = option
    return chosen


_Move = tuple[float, float, int, int]


def _moves(sites: Sequence[Sequence[Option]], chosen: Sequence[int]) -> list[_Move]:
    """(change of price, change of weight, site, option) of every single change."""
    return [
        (option.price - options[i].price, option.weight - options[i].weight, site, number)
        for site, (options, i) in enumerate(zip(sites, chosen, strict=True))
        for number, option in enumerate(options)
        if number != i
    ]


def _best_exchange(moves: Sequence[_Move], room: float) -> list[tuple[int, int]] | None:
    """The one or two moves that lower the price most and fit; None if none does.

    For each move that helps, the partner is the one that costs least among those that make enough room: found in a
    list of moves by weight with the cheapest so far, two deep, since the partner must be another site's.
    """
    scale = max((abs(price) for price, *_ in moves), default=0.0)
    best: tuple[float, list[tuple[int, int]]] = (-_SLACK * scale, [])
    lighter = sorted((move for move in moves if move[1] < 0), key=lambda move: move[1])
    for price, weight, site, option in moves:
        if price >= best[0]:
            continue
        if weight <= room:
            best = (price, [(site, option)])
            continue
        partners = [move for move in lighter if weight + move[1] <= room and move[2] != site]
        if partners:
            other = min(partners)
            if price + other[0] < best[0]:
                best = (price + other[0], [(site, option), (other[2], other[3])])
    return best[1] or None
