"""From a mixture to a better one of the same size, with what the errors of two sites have in common.

Errors of single sites are vectors, and the error of a mixture is nearly their sum: |sum|^2 holds a term for each pair
of sites. Adding up squares ignores those; here single changes and exchanges of two are made while they lower the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Share of the pairs' terms that is believed: in part they belong to the forwards that were measured, not to the model
PAIRS = 0.75
_LEAST_GAIN = 1e-9

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Entries:
    """Every option of every site, M of them."""

    # [M], number of the site
    site: Places
    # [M], bytes
    size: Numbers
    # [M, M], inner products of the deviations
    gram: Numbers

    @classmethod
    def believed(cls, site: Places, size: Numbers, gram: Numbers) -> Entries:
        """With the terms between different sites shrunk to PAIRS."""
        own = site[:, None] == site[None]
        return cls(site, size, np.where(own, gram, PAIRS * gram))

    def energy(self, chosen: Places) -> float:
        """Error squared of a mixture; `chosen`: an entry a site, in order."""
        return float(self.gram[np.ix_(chosen, chosen)].sum())


def improve(entries: Entries, start: Places, limit: float) -> Places:
    """Changes one or two sites at a time, the most helpful first, within `limit` bytes, until nothing helps.

    Args:
        entries: the options.
        start: an entry a site, in order, at most `limit` bytes.
        limit: bytes.

    Returns:
        The same form.
    """
    chosen = start.copy()
    every = np.arange(len(entries.site))
    same = entries.site[:, None] == entries.site[None]
    for _ in range(4 * len(start)):
        current = chosen[entries.site]
        room = limit - entries.size[chosen].sum() + 1e-6
        # d = v_new - v_old of each entry; |S + d|^2 - |S|^2
        towards = entries.gram[:, chosen].sum(1)
        between = (
            entries.gram - entries.gram[:, current] - entries.gram[current] + entries.gram[np.ix_(current, current)]
        )
        single = between[every, every] + 2 * (towards - towards[current])
        growth = entries.size - entries.size[current]
        pairs = single[:, None] + single[None] + 2 * between
        pairs[same | (growth[:, None] + growth[None] > room)] = np.inf
        single = np.where(growth > room, np.inf, single)
        first, second = np.unravel_index(int(np.argmin(pairs)), pairs.shape)
        alone = int(np.argmin(single))
        moves = (alone,) if single[alone] <= pairs[first, second] else (int(first), int(second))
        gain = -min(single[alone], pairs[first, second])
        if gain <= _LEAST_GAIN * entries.energy(chosen):
            break
        for move in moves:
            chosen[entries.site[move]] = move
    return chosen
