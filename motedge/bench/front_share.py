"""How sure a place on the front is: how often it is there when the turns are drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np

from motedge.bench.turn_interval import FEWEST_TURNS, drawn_turns, medians_of

RESAMPLES = 500
# From this share on a place is called sure
SURE = 0.9


def front_shares(
    turns: Sequence[Sequence[Sequence[float]]],
    errors: Sequence[float],
    seed: int = 0,
    beside: Optional[Sequence[Sequence[Sequence[float]]]] = None,
) -> list[Optional[float]]:
    """Share of drawings in which each cell is on the front of (median time, error).

    Turns are drawn with replacement, the same ones for all cells, since what slows the machine for a while slows
    whoever has a turn then; errors stay as they are, for they depend on no clock.

    Args:
        turns: cell -> turn -> ms of its ticks; all cells have the same turns.
        errors: of each cell.
        seed: of the drawing.
        beside: cell -> turn -> ms of the reference's ticks in the same session, by which the cell's are divided: cells
            of several sessions can be held against one another by it alone. None: all cells are of one session.

    Returns:
        None for all below FEWEST_TURNS turns.
    """
    count = min((len(cell) for cell in turns), default=0)
    if count < FEWEST_TURNS:
        return [None] * len(turns)
    held = np.asarray(errors, np.float64)
    drawn = drawn_turns(np.random.default_rng(seed), RESAMPLES, count)
    medians = np.array([medians_of(cell[:count], drawn) for cell in turns])
    if beside is not None:
        medians /= np.array([medians_of(cell[:count], drawn) for cell in beside])
    no_worse, better = held[None, :] <= held[:, None], held[None, :] < held[:, None]
    found = np.zeros(len(turns))
    for row in medians.T:
        faster, as_fast = row[None, :] < row[:, None], row[None, :] <= row[:, None]
        found += ~(no_worse & as_fast & (better | faster)).any(axis=1)
    return [round(float(share), 4) for share in found / RESAMPLES]
