"""Which turns of a cell were taken beside the reference's: what the machine did in another session is not held against
it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from motedge.bench.state import Cell, CellState
from motedge.bench.turn_interval import ENOUGH_TURNS, FEWEST_TURNS
from motedge.units import count_of

# Names of cells in a note
_NAMED = 3


@dataclass(frozen=True)
class Beside:
    """Turns of a cell and, one for one, those of the reference as shipped; ms of their ticks."""

    # Which turns
    numbers: list[int]
    own: list[list[float]]
    reference: list[list[float]]

    @classmethod
    def of_cell(cls, found: Mapping[str, CellState], cell: Cell, right: Cell, one_at_a_time: bool) -> Beside:
        """Of a cell's turns those of a session and a round in which the reference had one too.

        Args:
            found: cell id -> its state.
            cell: the cell.
            right: the reference as shipped.
            one_at_a_time: recipes took no turns with each other: none of another recipe's was beside the reference's.
        """
        if one_at_a_time and cell.candidate != right.candidate:
            return cls([], [], [])
        taken, pairs = found[right.id].taken, []
        for number, line in sorted(found[cell.id].turns.items()):
            other = taken.get((int(line["session"]), number))
            if other is not None:
                pairs.append((number, line["ms"], other["ms"]))
        return cls([n for n, _, _ in pairs], [own for _, own, _ in pairs], [other for _, _, other in pairs])

    def of(self, side: str, numbers: Sequence[int]) -> list[list[float]]:
        """The turns of these numbers, all of which it has, of "own" or "reference"."""
        turns = dict(zip(self.numbers, getattr(self, side)))
        return [turns[number] for number in numbers]


def cautions(entries: Sequence[Mapping[str, Any]], one_at_a_time: bool) -> list[str]:
    """What must be known before ratios and shares are believed, or why there are none.

    Args:
        entries: cells of the report that are measured whole.
        one_at_a_time: as `Beside.of_cell`.
    """
    notes, apart = [], [entry["id"] for entry in entries if entry["of_reference"] is None]
    turns = [entry["of_reference"]["turns"] for entry in entries if entry["of_reference"] is not None]
    if apart:
        why = "in one session and in turn"
        why += ": --one-at-a-time, recipes took no turns with each other" if one_at_a_time else ""
        names = ", ".join(apart[:_NAMED]) + (f" and {len(apart) - _NAMED} more" if len(apart) > _NAMED else "")
        notes.append(
            f"no share of the reference's time: {names}: fewer than {FEWEST_TURNS} turns beside the reference's, {why}"
        )
    if any(entry["front"]["time_share"] is None for entry in entries):
        notes.append(
            f"no share of the front: fewer than {FEWEST_TURNS} turns that all cells took beside the reference's"
        )
    if turns and min(turns) < ENOUGH_TURNS:
        notes.append(
            f"intervals are from as few as {count_of(min(turns), 'turn')}: too narrow; take at least {ENOUGH_TURNS} "
            "(--rounds)"
        )
    return notes
