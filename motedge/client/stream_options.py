"""How chunks are executed, asked for and joined."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Union

from motedge.errors import UsageError, closest

SEAMS = ("blend", "cut", "condition")
ON_EMPTY = ("hold", "zero", "raise")
ON_ERROR = ("raise", "report")


@dataclass(frozen=True)
class StreamOptions:
    """Options of a ChunkStream; a period is 1 / rate_hz, and a chunk has one row a period."""

    # Actions a second
    rate_hz: float
    # Rows of a chunk that are executed before the next chunk takes over
    horizon: int
    # Rows of the horizon that are executed before the next chunk is asked for; None: by prefetch_lead_s, or half
    prefetch_at: Optional[int] = None
    # The same as a time: how long before the horizon ends the next chunk is asked for, s
    prefetch_lead_s: Optional[float] = None
    # "blend": linear crossfade from the old chunk's rows to the new one's. "cut": the new one's at once. "condition":
    # the source was given the rows that are executed meanwhile, and has to begin with them; where it has not, blend
    seam: str = "blend"
    # Rows of the crossfade
    blend_rows: int = 4
    # Fields that are not blended, as index or as name if chunks name their fields: what opens and closes. None: those
    # with "gripper" in their name
    switched_fields: Optional[tuple[Union[int, str], ...]] = None
    # Largest difference between committed rows and the beginning of a conditioned chunk, in the fields' units
    condition_tolerance: float = 1e-3
    # When there is no row. "hold": the last action, for positions. "zero": zeros, for velocities and steps. "raise"
    on_empty: str = "hold"
    # When the source fails: "raise" from next_action, or "report" in TimedAction.error
    on_error: str = "raise"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise UsageError("rate_hz of a chunk stream", expected="over 0", got=self.rate_hz)
        _whole("horizon", self.horizon, 1)
        _whole("blend_rows", self.blend_rows, 0)
        for name, known in (("seam", SEAMS), ("on_empty", ON_EMPTY), ("on_error", ON_ERROR)):
            value = getattr(self, name)
            if value not in known:
                raise UsageError(f"{name} of a chunk stream", got=repr(value), fix=closest(str(value), known))
        if not (math.isfinite(self.condition_tolerance) and self.condition_tolerance >= 0):
            raise UsageError("condition_tolerance", expected="0 or more", got=self.condition_tolerance)
        if self.prefetch_at is not None and self.prefetch_lead_s is not None:
            raise UsageError("prefetch_at and prefetch_lead_s are given", fix="give one: they say the same")
        if self.prefetch_at is not None:
            _whole("prefetch_at", self.prefetch_at, 0)
        lead = self.lead_rows
        if not 1 <= lead <= self.horizon:
            raise UsageError(
                "the next chunk is asked for outside the horizon",
                expected=f"1 to {self.horizon} rows before the horizon of {self.horizon} rows ends",
                got=f"{lead} rows",
                fix="raise the horizon, or ask later",
            )

    @property
    def period_s(self) -> float:
        """Seconds from one action to the next."""
        return 1.0 / self.rate_hz

    @property
    def lead_rows(self) -> int:
        """Periods from the request of a chunk to its takeover: the latency that costs nothing."""
        if self.prefetch_lead_s is not None:
            if not math.isfinite(self.prefetch_lead_s):
                raise UsageError("prefetch_lead_s", expected="seconds", got=self.prefetch_lead_s)
            # A time that is a whole number of periods but for rounding is that number
            return math.ceil(self.prefetch_lead_s * self.rate_hz - 1e-6)
        return self.horizon - (self.horizon // 2 if self.prefetch_at is None else self.prefetch_at)


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} of a chunk stream", expected=f"a whole number, {least} or more", got=repr(value))
