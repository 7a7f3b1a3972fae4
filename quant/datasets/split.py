"""Which observations calibrate, and which are kept apart to measure on.

Neighbouring frames are nearly equal, so frames drawn at random would measure on what was calibrated. Held-out
observations come from other episodes; from one episode, from its end, a gap apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motedge.errors import DataError, UsageError
from motedge.quant.datasets.dataset import Moment

# Of the episodes, or of the only one: the share kept for measuring; and the share of it left unused before that
_HELD_OUT_SHARE, _GAP_SHARE = 0.2, 0.05
# More episodes than this are counted, not named
_NAMED = 6


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
        calibration: how many to calibrate on, at least 1.
        held_out: how many to measure on; may be 0.
        seed: of the places within even intervals.

    Raises:
        UsageError: nothing to calibrate on is asked for, or less than nothing to measure on.
        DataError: an empty data set, or fewer observations than asked for.
    """
    if calibration < 1 or held_out < 0:
        got = f"{calibration} and {held_out}"
        raise UsageError("the numbers of observations are wrong", expected="--observations 1 or more", got=got)
    if not moments:
        raise DataError("the data set is empty", expected="at least one observation", fix="check the path")
    ordered = sorted(moments)
    random = np.random.RandomState(seed)
    if not held_out:
        return Split(_spread(ordered, calibration, random, "calibration"), (), "nothing is held out")
    sizes = Counter(moment.group for moment in ordered)
    if len(sizes) > 1:
        apart = _episodes_apart(sizes, calibration, held_out)
        first = [moment for moment in ordered if moment.group not in apart]
        last = [moment for moment in ordered if moment.group in apart]
    else:
        first, last = _cut(ordered, calibration, held_out)
    chosen = _spread(first, calibration, random, "calibration")
    measured = _spread(last, held_out, random, "held-out")
    if len(sizes) > 1:
        named = f" (held out: {', '.join(sorted(apart))})" if len(apart) <= _NAMED else ""
        return Split(
            chosen, measured, f"held-out observations are of other episodes: {len(apart)} of {len(sizes)}{named}"
        )
    gap = measured[0].index - chosen[-1].index - 1
    rule = (
        f"one episode: held-out frames {measured[0].index} to {measured[-1].index}, a gap of {gap} frames after the "
        f"last calibration frame {chosen[-1].index}; they show the same scene"
    )
    return Split(chosen, measured, rule)


def _episodes_apart(sizes: Counter[str], calibration: int, held_out: int) -> set[str]:
    """Episodes to measure on: the last ones; where those or the others hold too little, short ones."""
    groups = list(sizes)
    by_size = sorted(groups, key=lambda group: (sizes[group], group))
    filled, held = 0, 0
    while held < held_out and filled < len(by_size):
        held += sizes[by_size[filled]]
        filled += 1
    ways = [
        groups[-max(1, round(_HELD_OUT_SHARE * len(groups))) :],
        [group for group in by_size if sizes[group] >= held_out][:1],
        by_size[:filled],
    ]
    total = sum(sizes.values())
    for way in ways:
        kept = sum(sizes[group] for group in way)
        if kept >= held_out and total - kept >= calibration:
            return set(way)
    raise DataError(
        "the data set is too small",
        expected=f"{calibration} observations to calibrate on and, of other episodes, {held_out} to measure on",
        got=f"{total} observations of {len(sizes)} episodes, the longest of {max(sizes.values())}",
        fix="give more data, or ask for fewer: --observations, --held-out",
    )


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
