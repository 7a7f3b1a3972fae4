"""One action out of a chunk, and the moment it is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TimedAction:
    """What to send to the robot now."""

    # float64 [fields], the caller's own
    row: NDArray[np.float64]
    # When it is due on the stream's clock, s
    due_s: float
    # Number of the chunk that it comes from, from 0; where there was none, of the last one
    chunk: int
    # Its row in that chunk; None unless kind is "fresh"
    row_index: Optional[int]
    # "fresh": a row of a chunk, in its own period. "held", "zero": no row for this period, by `on_empty`.
    # "repeated": this period's action was given out already
    kind: str
    # Age of the observation that the action answers, s; None unless kind is "fresh"
    observation_age_s: Optional[float] = None
    # A failure of the source that is reported with this action instead of being raised
    error: Optional[str] = None
