"""Why a bench tells no energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from motedge.bench.state import ENERGY, is_done


def why_no_energy(lines: Sequence[Mapping[str, Any]], energy_s: float) -> Optional[str]:
    """For people; None where some cell has its energy, or it is still to come.

    Args:
        lines: of the journal.
        energy_s: how long each cell's ticks are for it.
    """
    told = [line["energy"] for line in lines if line["kind"] == ENERGY]
    if any(energy is not None and energy["per_chunk_j"] is not None for energy in told):
        return None
    if not energy_s:
        return "not asked for"
    if any(told):
        return "sensors here tell the power of neither the board nor a GPU nor the processor"
    if told:
        return f"too few readings in {energy_s:g} s; a longer --energy-s gives more"
    return "no sensor here tells of power" if is_done(lines) else None
