"""Which seed each request gets. The policy server's sequence (cosmos-framework at 5eee9ed), or one fixed seed."""

from __future__ import annotations

import numpy as np

from motedge.errors import UsageError


class RequestSeeds:
    """Seeds of successive requests: `default_rng(seed).integers(0, 2**31)`, one after the other; or `seed` for ever."""

    def __init__(self, seed: int = 0, *, fixed: bool = False) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise UsageError("the seed is out of range", expected="a whole number from 0 to 4294967295", got=seed)
        self._seed, self._fixed = seed, fixed
        self._generator = np.random.default_rng(seed)
        self._upcoming = self._draw()

    def peek(self) -> int:
        """The seed that the next request will get."""
        return self._upcoming

    def take(self) -> int:
        """The next request's seed; moves on."""
        seed, self._upcoming = self._upcoming, self._draw()
        return seed

    def _draw(self) -> int:
        return self._seed if self._fixed else int(self._generator.integers(0, 2**31))
