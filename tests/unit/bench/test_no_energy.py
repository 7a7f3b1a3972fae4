"""Why a bench tells no energy: each reason, and none while it is still to come."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from motedge.bench.no_energy import why_no_energy

DONE: dict[str, Any] = {"kind": "done"}
TIMES: dict[str, Any] = {"kind": "times", "cell": "a"}


def energy(told: Optional[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": "energy", "cell": "a", "energy": told}


@pytest.mark.parametrize(
    ("lines", "energy_s", "why"),
    [
        ([], 3.0, None),
        ([TIMES], 3.0, None),
        ([TIMES, DONE], 3.0, "no sensor here tells of power"),
        ([TIMES], 0.0, "not asked for"),
        ([TIMES, energy(None), DONE], 0.5, "too few readings in 0.5 s"),
        ([TIMES, energy({"per_chunk_j": None}), DONE], 3.0, "neither the board nor a GPU"),
        ([TIMES, energy(None), energy({"per_chunk_j": 4.0}), DONE], 3.0, None),
    ],
)
def test_the_reason(lines: list[Any], energy_s: float, why: Optional[str]) -> None:
    found = why_no_energy(lines, energy_s)
    assert (found is None) if why is None else (found is not None and why in found)
