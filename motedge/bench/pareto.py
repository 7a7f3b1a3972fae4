"""The Pareto front: points that no other beats in everything."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pareto_front(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Which points are on the front; less is better in every dimension.

    A point is off the front where another is no worse in all dimensions and better in one. Points that are equal in all
    of them don't beat each other: either all of them are on the front or none is.

    Args:
        costs: a row a point, all of one length; a row with a cost that is not finite is never on the front.
    """
    known = [all(map(math.isfinite, row)) for row in costs]
    return [
        mine and not any(theirs and _beats(other, row) for other, theirs in zip(costs, known))
        for row, mine in zip(costs, known)
    ]


def _beats(first: Sequence[float], second: Sequence[float]) -> bool:
    pairs = list(zip(first, second))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
