"""From raw actions to the numbers that a model was trained on, and back.

Each method is a shift and a scale for every channel (cosmos-framework at 5eee9ed, action_processing.py):

    quantile       the 1st and 99th percentile become -1 and 1
    quantile_rot   the same, with the rotation as it was measured (block "global_raw")
    minmax         least and greatest become -1 and 1
    meanstd        mean 0, standard deviation 1
    none           as they are

Mid-training also cut what is normalised off at -1 and 1, except by meanstd: `clamp`. What was cut can't be restored.
"""

from __future__ import annotations

from typing import Optional

import numpy as np
from numpy.typing import ArrayLike, NDArray

from motedge.errors import ContractError, DataError, UsageError, closest
from motedge.runtime.actions.stats import ActionStats
from motedge.runtime.engine import FloatArray

# Method: block of the statistics, and the two that it needs
METHODS = {
    "none": ("global", ()),
    "quantile": ("global", ("q01", "q99")),
    "quantile_rot": ("global_raw", ("q01", "q99")),
    "minmax": ("global", ("min", "max")),
    "meanstd": ("global", ("mean", "std")),
}
# A range below this is no range: the framework divides by it there, and makes noise of rounding
SMALLEST_RANGE = 1e-8


class ActionNormaliser:
    """Normalises and restores actions of one data set."""

    def __init__(self, method: str, stats: Optional[ActionStats] = None, *, clamp: bool = False) -> None:
        """Chooses the statistics.

        Args:
            method: A key of `METHODS`.
            stats: Of the raw actions; needed by all methods but "none".
            clamp: Cut off at -1 and 1 what is normalised; not by "meanstd" and "none".

        Raises:
            UsageError: an unknown method, or no statistics.
            DataError: statistics that the method needs are missing, or of a range that is empty or reversed.
        """
        if method not in METHODS:
            raise UsageError(f"unknown normalisation {method!r}", fix=closest(method, METHODS))
        if method != "none" and stats is None:
            raise UsageError(f"normalisation {method!r} needs statistics", fix="read them with read_stats")
        self.method = method
        self.clamp = clamp and method not in ("meanstd", "none")
        self._offset: Optional[NDArray[np.float64]] = None
        self._scale: Optional[NDArray[np.float64]] = None
        if stats is not None and method != "none":
            self._offset, self._scale = _shift_and_scale(method, stats)

    @property
    def width(self) -> Optional[int]:
        """Number of channels; None where any will do."""
        return None if self._offset is None else len(self._offset)

    def normalise(self, actions: ArrayLike) -> FloatArray:
        """Model actions fp32 [..., D] of raw ones [..., D].

        Raises:
            ContractError: another width, NaN or infinity.
        """
        raw = self._check(actions)
        if self._offset is None or self._scale is None:
            return raw.astype(np.float32)
        made = (raw - self._offset) / self._scale
        return (np.clip(made, -1, 1) if self.clamp else made).astype(np.float32)

    def restore(self, actions: ArrayLike) -> FloatArray:
        """Raw actions fp32 [..., D] of the model's [..., D].

        Raises:
            ContractError: another width, NaN or infinity.
        """
        made = self._check(actions)
        if self._offset is None or self._scale is None:
            return made.astype(np.float32)
        return (made * self._scale + self._offset).astype(np.float32)

    def _check(self, actions: ArrayLike) -> NDArray[np.float64]:
        values = np.asarray(actions, dtype=np.float64)
        if values.ndim < 1 or (self.width is not None and values.shape[-1] != self.width):
            raise ContractError(
                "actions do not fit their statistics",
                expected=f"[..., {self.width or 'D'}]",
                got=list(values.shape),
                fix="cut padding off, or the statistics with ActionStats.first",
            )
        if not np.isfinite(values).all():
            raise ContractError("actions hold NaN or infinity", expected="finite numbers")
        return values


def _shift_and_scale(method: str, stats: ActionStats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    block, names = METHODS[method]
    found = stats.blocks.get(block, {})
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"normalisation {method!r} needs other statistics",
            expected=f"{' and '.join(names)} in block {block!r}",
            got=", ".join(f"{name}: {' '.join(each)}" for name, each in stats.blocks.items()),
        )
    first, second = found[names[0]], found[names[1]]
    if method == "meanstd":
        offset, scale, what = first, second, names[1]
        unsound = scale < SMALLEST_RANGE
    else:
        offset, scale, what = (second + first) / 2, (second - first) / 2, f"{names[1]} - {names[0]}"
        unsound = second - first < SMALLEST_RANGE
    if unsound.any():
        channel = int(np.argmax(unsound))
        raise DataError(
            f"channel {channel} has no range to normalise by",
            expected=f"{what} of at least {SMALLEST_RANGE:g}",
            got=f"{names[0]} {first[channel]:g}, {names[1]} {second[channel]:g}",
            why="a channel that never moved carries nothing; dividing by its range makes noise of rounding",
            fix="give that channel a range of its own, such as -1 to 1",
        )
    return offset, scale
