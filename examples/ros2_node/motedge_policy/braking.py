"""The way to rest from whatever the arm was last told."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from motedge.client import ActionEnvelope

# A step smaller than this is none, rad
_STILL_RAD = 1e-6
_MOST_STEPS = 150


def way_to_rest(envelope: ActionEnvelope, first_dt_s: float, period_s: float) -> NDArray[np.float64]:
    """Rows [n, fields], one a period, that bring the arm to rest inside the envelope's limits; at least one.

    Args:
        envelope: knows where the arm is told to be; is moved to the end of the way.
        first_dt_s: since the last command.
        period_s: between rows.
    """
    nothing = np.full(len(envelope.limits.names), np.nan)
    rows = [envelope.apply(nothing, first_dt_s).action]
    while len(rows) < _MOST_STEPS:
        rows.append(envelope.apply(nothing, period_s).action)
        if np.abs(rows[-1] - rows[-2]).max() < _STILL_RAD:
            break
    return np.stack(rows)
