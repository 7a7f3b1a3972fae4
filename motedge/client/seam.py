"""The seam between the chunk that is executed and the one that takes over."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def crossfade(old: Rows, new: Rows, blended: NDArray[np.bool_]) -> Rows:
    """`new` with its first rows faded in from `old`, which are due at the same moments.

    Row i of n has the share (i + 1) / (n + 1) of the new chunk, so that neither end repeats a pure row.

    Args:
        old: float64 [n, fields], n at most the rows of `new`.
        new: float64 [rows, fields].
        blended: bool [fields]; the others are the new chunk's from the first row on.
    """
    count = len(old)
    share = ((np.arange(count) + 1) / (count + 1))[:, None]
    out = new.copy()
    mixed = (1 - share) * old + share * new[:count]
    out[:count, blended] = mixed[:, blended]
    return out


def continues(committed: Rows, new: Rows, tolerance: float) -> bool:
    """Whether a chunk begins with the rows that it was conditioned on."""
    count = min(len(committed), len(new))
    # Before the first chunk the committed rows have no width either
    return count == 0 or bool((np.abs(new[:count] - committed[:count]) <= tolerance).all())
