"""A chunk as it comes from the source, looked through before any of it is executed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np
from numpy.typing import NDArray

from motedge.client.stream_errors import ChunkSourceError
from motedge.client.stream_options import StreamOptions

# What a policy's chunk says of itself; the others are rests of earlier ones
_FRESH = "fresh"
# Relative difference up to which two rates are the same
_RATE_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows of a chunk on the stream's grid: row i is due in tick `observation_tick` + i + 1."""

    # From 0, in the order of requests
    number: int
    observation_tick: int
    observation_s: float
    # float64 [rows, fields], the stream's own
    rows: NDArray[np.float64]
    # float64 [committed, fields]: what is executed between the observation and the takeover
    committed: NDArray[np.float64]
    # bool [fields]: what is blended
    blended: NDArray[np.bool_]

    def index(self, tick: int) -> int:
        """The row that is due in that tick; maybe outside the chunk."""
        return tick - self.observation_tick - 1

    def has(self, tick: int) -> bool:
        """Whether there is a row for that tick."""
        return 0 <= self.index(tick) < len(self.rows)

    def row(self, tick: int) -> NDArray[np.float64]:
        """The row for that tick."""
        row: NDArray[np.float64] = self.rows[self.index(tick)]
        return row

    def between(self, first: int, end: int) -> NDArray[np.float64]:
        """The rows for the ticks from `first` to before `end`, as far as there are any; a copy."""
        return self.rows[max(self.index(first), 0) : max(self.index(end), 0)].copy()


def check_rows(answer: Any, options: StreamOptions, fields: Optional[int]) -> NDArray[np.float64]:
    """The rows of what a source answered: an array [rows, fields], or an object with `.actions` and `.rate_hz`.

    Args:
        answer: What came.
        options: The rate that is expected.
        fields: Width of the chunks before, if any.

    Raises:
        ChunkSourceError: it is not that, holds a number that is not finite, or is what was left of an earlier chunk.
    """
    kind = getattr(answer, "kind", _FRESH)
    if kind != _FRESH:
        raise ChunkSourceError(
            f"the source answered with a {kind} chunk",
            expected="one made from the observation that was given",
            why="its rows count from an earlier observation; the stream has those already",
            fix='on_error="report" goes on with them',
        )
    rate_hz = getattr(answer, "rate_hz", options.rate_hz)
    try:
        rows = np.array(getattr(answer, "actions", answer), dtype=np.float64)
        same_rate = abs(float(rate_hz) - options.rate_hz) <= _RATE_TOLERANCE * options.rate_hz
    except (TypeError, ValueError) as error:
        raise ChunkSourceError("the source answered with something that is no chunk", why=str(error)) from error
    if rows.ndim != 2 or 0 in rows.shape or (fields is not None and rows.shape[1] != fields):
        raise ChunkSourceError(
            "the chunk has another shape",
            expected=f"[rows, {'fields' if fields is None else fields}], at least one of each",
            got=list(rows.shape),
        )
    if not same_rate:
        raise ChunkSourceError("the chunk has another rate", expected=f"{options.rate_hz} Hz", got=f"{rate_hz} Hz")
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        row, column = bad[0].tolist()
        raise ChunkSourceError(
            f"the chunk holds {len(bad)} numbers that are not finite",
            got=f"{rows[row, column]} in row {row}, field {column}",
        )
    return rows


def blended_fields(answer: Any, options: StreamOptions, fields: int) -> NDArray[np.bool_]:
    """Which fields are blended, bool [fields].

    Raises:
        ChunkSourceError: `switched_fields` holds one that the chunk has not.
    """
    names: Sequence[str] = tuple(getattr(answer, "field_names", ()))
    switched: Sequence[Union[int, str]]
    if options.switched_fields is None:
        switched = [name for name in names if "gripper" in name]
    else:
        switched = options.switched_fields
    blended = np.ones(fields, dtype=np.bool_)
    for field in switched:
        index = names.index(field) if isinstance(field, str) and field in names else field
        if not isinstance(index, int) or not -fields <= index < fields:
            raise ChunkSourceError(
                f"switched_fields holds {field!r}",
                expected=f"an index below {fields}" + (f", or of {list(names)}" if names else ""),
            )
        blended[index] = False
    return blended
