"""What the journal says of each cell: what is there, what is still to be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from motedge.bench.candidate import Candidate
from motedge.runtime.deadline.operating_point import OperatingPoint

# Kinds of lines
SESSION, OPENED, ANSWERS, TIMES, BESIDE, MEMORY, ENERGY, FAILED, RETRIED, DONE = (
    *("session", "opened", "answers", "times", "beside", "memory"),
    *("energy", "failed", "retried", "done"),
)


@dataclass(frozen=True)
class Cell:
    """One candidate at one operating point."""

    candidate: Candidate
    point: OperatingPoint

    @property
    def id(self) -> str:
        """Unique in a bench."""
        return f"{self.candidate.name} / {self.point.name}"


@dataclass
class CellState:
    """Of one cell."""

    answers: Optional[dict[str, Any]] = None
    # Turn -> line of its times
    turns: dict[int, dict[str, Any]] = field(default_factory=dict)
    # (Session, turn) -> line; of the reference more than its own turns: those beside others' in later sessions
    taken: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    energy: Optional[dict[str, Any]] = None
    # The error as text, in lines; None: it has not failed
    failed: Optional[str] = None


def cells_of(candidates: Sequence[Candidate], points: Sequence[OperatingPoint]) -> list[Cell]:
    """Every candidate at every point; the reference as shipped is the first."""
    return [Cell(candidate, point) for candidate in candidates for point in points]


def states(lines: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> dict[str, CellState]:
    """Cell id -> its state."""
    found = {cell.id: CellState() for cell in cells}
    for line in lines:
        if line["kind"] == RETRIED:
            for cell in line["cells"]:
                found[str(cell)].failed = None
        cell = str(line.get("cell"))
        if cell not in found:
            continue
        state = found[cell]
        if line["kind"] == ANSWERS:
            state.answers = dict(line)
        elif line["kind"] == TIMES:
            state.turns[int(line["turn"])] = dict(line)
            state.taken[int(line["session"]), int(line["turn"])] = dict(line)
        elif line["kind"] == BESIDE:
            state.taken[int(line["session"]), int(line["turn"])] = dict(line)
        elif line["kind"] == ENERGY:
            state.energy = dict(line)
        elif line["kind"] == FAILED:
            state.failed = str(line["error"])
    return found


def is_done(lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last session came to its end."""
    ends = [line["kind"] for line in lines if line["kind"] in (SESSION, RETRIED, DONE)]
    return bool(ends) and ends[-1] == DONE
