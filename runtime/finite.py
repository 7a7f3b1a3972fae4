"""Stops at the first NaN or infinity, so that none reaches a robot."""

from __future__ import annotations

import numpy as np

from motedge.errors import GateError
from motedge.runtime.engine import Array


class NonFiniteError(GateError):
    """A graph returned NaN or infinity."""


def is_finite(values: Array) -> bool:
    """Whether all values are finite. Allocates nothing: minimum and maximum pass NaN on."""
    return values.size == 0 or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def check_finite(values: Array, what: str) -> None:
    """Raises NonFiniteError with `what` as its message, and how many values are wrong."""
    if is_finite(values):
        return
    wrong = int(np.count_nonzero(~np.isfinite(values)))
    raise NonFiniteError(
        what,
        expected="finite numbers",
        got=f"{wrong} of {values.size} are not",
        why="damaged weights, inputs far outside the trained range, or an overflow of the variant's dtype",
        fix="motedge verify BUNDLE; if that passes, look at the inputs, or take a primitive-fp32 variant",
    )
