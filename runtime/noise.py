"""Initial noise: numpy's legacy generator, the same on every machine and backend, drawn ahead of time.

Every modality starts a fresh `RandomState(seed)`, so a shorter draw is the head of a longer one: one draw serves
vision and action (cosmos-framework at 5eee9ed).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional

import numpy as np

from motedge.runtime.engine import FloatArray

# The seed of the tick after the one with this seed, or None if it is not known yet
NextSeed = Callable[[int], Optional[int]]


def standard_normal(seed: int, shape: Sequence[int]) -> FloatArray:
    """Standard normal noise, fp32, MT19937 with the polar method; drawn in fp64 and rounded."""
    flat = np.random.RandomState(seed).standard_normal(math.prod(shape))
    return flat.astype(np.float32).reshape(tuple(shape))


def step_noise(seed: int, step: int, count: int) -> FloatArray:
    """Fresh noise of one sampling step, fp32 [count]: a stream for each seed and step, none of them that of the start.

    The reference draws it with torch, whose numbers depend on the device.
    """
    return np.random.RandomState([seed, step + 1]).standard_normal(count).astype(np.float32)


class NoiseAhead:
    """Draws the next tick's noise in a background thread. Numbers depend on the seed alone, never on the timing.

    At most one draw is kept ahead. Without `next_seed`, noise is drawn when asked for, or after `prepare`.
    """

    def __init__(self, next_seed: Optional[NextSeed] = None) -> None:
        self._next_seed = next_seed
        self._pool: Optional[ThreadPoolExecutor] = None
        self._pending: Optional[tuple[int, int, Future[FloatArray]]] = None

    def take(self, seed: int, count: int) -> tuple[FloatArray, bool]:
        """The first `count` numbers of the stream of `seed`, fp32 [count]; and whether they had been drawn ahead.

        Then starts on the next seed, if `next_seed` knows it.
        """
        pending, self._pending = self._pending, None
        hit = pending is not None and pending[0] == seed and pending[1] >= count
        if pending is not None and hit:
            noise = pending[2].result()[:count]
        else:
            if pending is not None:
                pending[2].cancel()
            noise = standard_normal(seed, (count,))
        upcoming = self._next_seed(seed) if self._next_seed is not None else None
        if upcoming is not None:
            self.prepare(upcoming, count)
        return noise, hit

    def prepare(self, seed: int, count: int) -> None:
        """Starts drawing; whatever else was drawn ahead and not taken is dropped."""
        if self._pending is not None:
            self._pending[2].cancel()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="motedge-noise")
        self._pending = (seed, count, self._pool.submit(standard_normal, seed, (count,)))

    def close(self) -> None:
        """Waits for a draw under way and ends the thread. The object can be used again; it then starts a new one."""
        self._pending = None
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None

    def __enter__(self) -> NoiseAhead:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
