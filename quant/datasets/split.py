"""Which observations calibrate, and which are kept apart to measure on.

Neighbouring frames are nearly equal, so frames drawn at random would measure on what was calibrated. Held-out
observations come from other episodes; from one episode, from its end, a gap apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motedge.errors import DataError
from motedge.quant.datasets.dataset import Moment

# Of one episode: the share kept for measuring, and the share left unused before it
_HELD_OUT_SHARE, _GAP_SHARE = 0.2, 0.05


@dataclass(frozen=True)
class Split:
    """Observations by use."""

    calibration: tuple[Moment, ...]
    held_out: tuple[Moment, ...]
    # How they were told apart, in words
    rule: str


def split_moments(moments: Sequence[Moment], *, calibration: int, held_out: int, seed: int = 0) -> Split:
    """Chooses observations, spread evenly over what there is; the same for the same arguments.

    Args:
        moments: every observation of the data set.
        calibration: how many to calibrate on.
        held_out: how many to measure on; may be 0.
        seed: of the places within even intervals.

    Raises:
        DataError: an empty data set, or fewer observations than asked for.
    """
    if not moments:
        raise DataError("the data set is empty", expected="at least one observation", fix="check the path")
    ordered = sorted(moments)
    groups = list(dict.fromkeys(moment.group for moment in ordered))
    random = np.random.RandomState(seed)
    if not held_out:
        return Split(_spread(ordered, calibration, random, "calibration"), (), "nothing is held out")
    if len(groups) > 1:
        apart = set(groups[-max(1, round(_HELD_OUT_SHARE * len(groups))) :])
        first = [moment for moment in ordered if moment.group not in apart]
        last = [moment for moment in ordered if moment.group in apart]
        rule = f"held-out observations are of other episodes: {len(apart)} of {len(groups)}"
    else:
        first, last = _cut(ordered, calibration, held_out)
        rule = (
            f"one episode: held-out frames {last[0].index} to {last[-1].index} lie apart in time from calibration "
            f"frames {first[0].index} to {first[-1].index}; they show the same scene"
        )
    return Split(_spread(first, calibration, random, "calibration"), _spread(last, held_out, random, "held-out"), rule)


def _cut(ordered: list[Moment], calibration: int, held_out: int) -> tuple[list[Moment], list[Moment]]:
    """Beginning and end of one episode, with a gap between."""
    count = len(ordered)
    tail = max(held_out, round(_HELD_OUT_SHARE * count))
    head = count - tail - max(1, round(_GAP_SHARE * count))
    if head < calibration:
        raise DataError(
            "the data set is too small",
            expected=f"{calibration} observations to calibrate on and, a gap apart, {held_out} to measure on",
            got=f"{count} observations of one episode",
            fix=f"give more data, or --observations {head} --held-out {held_out}" if head > 0 else "give more data",
        )
    return ordered[:head], ordered[count - tail :]


def _spread(moments: Sequence[Moment], count: int, random: np.random.RandomState, use: str) -> tuple[Moment, ...]:
    """One out of each of `count` even intervals."""
    if len(moments) < count:
        raise DataError(
            f"the data set is too small for {count} {use} observations",
            expected=f"at least {count}",
            got=len(moments),
            fix="give more data, or ask for fewer: --observations, --held-out",
        )
    edges = np.linspace(0, len(moments), count + 1).astype(int)
    return tuple(moments[random.randint(low, high)] for low, high in zip(edges[:-1], edges[1:]))
