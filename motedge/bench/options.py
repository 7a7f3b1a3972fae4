"""How a bench is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from motedge.errors import UsageError

# Confidence of every interval that is told
CONFIDENCE = 0.95
# How people are told of them, with the option of the command line
_WORDS = {
    "repeat": "the number of ticks (--repeat)",
    "rounds": "the number of rounds (--rounds)",
    "warm_up": "the number of warm-up ticks (--warm-up)",
    "seed": "the seed of the noise (--seed)",
    "energy_s": "the time that energy is measured (--energy-s)",
    "idle_s": "the rest before energy is measured (--idle-s)",
}


@dataclass(frozen=True)
class BenchOptions:
    """Counts and times. Wrong values are refused on creation."""

    # Ticks of each cell that count, over all rounds
    repeat: int = 30
    # Turns that every cell gets; a turn runs its share of the ticks one after the other. Many short ones: intervals are
    # drawn from turns, and of fewer than a dozen they are too narrow
    rounds: int = 15
    # Ticks before the first turn that don't count; each later turn begins with one, or three on a GPU, which must first
    # capture what it launches
    warm_up: int = 3
    # Of the noise: observation i is answered with seed + i
    seed: int = 0
    # Ticks that sensors are read during, for each cell
    energy_s: float = 3.0
    # Rest before them, over which the power of the idle machine is read
    idle_s: float = 3.0
    # Between two readings of the sensors
    interval_ms: float = 100.0
    # Whether a recipe is loaded only while its own cells are run; otherwise all are loaded, and take turns
    one_at_a_time: bool = False

    def __post_init__(self) -> None:
        for name, least in (("repeat", 1), ("rounds", 1), ("warm_up", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{_WORDS[name]} is wrong", expected=f"a whole number from {least}", got=value)
        if self.seed >= 2**31:
            raise UsageError(f"{_WORDS['seed']} is wrong", expected="0 to 2147483647", got=self.seed)
        if self.rounds > self.repeat:
            raise UsageError(
                "a bench has more rounds than ticks", expected=f"1 to {self.repeat} rounds", got=self.rounds
            )
        for name in ("energy_s", "idle_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 3600):
                raise UsageError(f"{_WORDS[name]} is wrong", expected="0 to 3600 s", got=value)
        if not 1 <= self.interval_ms <= 60_000:
            raise UsageError("the sensors' interval is wrong", expected="1 to 60000 ms", got=self.interval_ms)

    def ticks_of(self, turn: int) -> int:
        """Ticks that count in a turn, 0 to rounds - 1; all turns together have `repeat`."""
        return self.repeat * (turn + 1) // self.rounds - self.repeat * turn // self.rounds

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
