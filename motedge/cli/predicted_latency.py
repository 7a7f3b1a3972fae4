"""What a target's tick is predicted to take with a recipe and without: for the fidelity report.

Quantization knows nothing of plans, which stand above it (docs/decisions/0010-planning-above-quantization.md); the
command line knows both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motedge.bundle import Bundle
    from motedge.targets.catalog import Target


def predicted_latency(bundle: Bundle, recipe: str, target: Target) -> Mapping[str, Any]:
    """The report's `latency`: predicted_ms, low_ms, high_ms, unquantized_ms and target; or predicted_ms None and why.

    Args:
        bundle: the unquantized one.
        recipe: id of a recipe, or a .toml file.
        target: the device.
    """
    from motedge.errors import MotedgeError
    from motedge.targets.plan import make_plan

    try:
        ticks = [make_plan(bundle, target, recipe=name, advise=False).tick for name in (recipe, None)]
    except MotedgeError as error:
        return {"predicted_ms": None, "target": target.id, "why": error.what}
    if ticks[0] is None or ticks[1] is None:
        return {"predicted_ms": None, "target": target.id, "why": f"the catalogue lacks a rate of {target.name}"}
    point, plain = ticks[0].points[0], ticks[1].points[0]
    return {
        "predicted_ms": 1000 * point.tick_s,
        "low_ms": 1000 * point.low_s,
        "high_ms": 1000 * point.high_s,
        "unquantized_ms": 1000 * plain.tick_s,
        "target": target.id,
    }
