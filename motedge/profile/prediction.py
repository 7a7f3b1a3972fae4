"""How near the graphs come to what this device could do: measured times beside the plan's roofline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from motedge.bundle import Bundle
from motedge.errors import BundleError, MotedgeError
from motedge.profile.statistics import Summary

if TYPE_CHECKING:
    from motedge.targets.catalog import Target
    from motedge.targets.plan import PlanOptions
    from motedge.targets.plan.make import Planner
    from motedge.targets.plan.model import GraphPlan


def roofline(
    root: Path,
    target_id: Optional[str],
    graphs: Mapping[str, Summary],
    *,
    recipe: Optional[str],
    variants: Mapping[str, str],
    und_len: Optional[int],
) -> dict[str, Any]:
    """The plan's figures for the graphs that were measured; what is not known is None, and `why` says why.

    For each graph:
        measured_ms: median of one run
        gflop, moved_gb: work of one run, from the graph
        tflops, gbps: that work over the measured time
        bound_ms: what the device's nominal rates allow at best; `fraction` is that over measured_ms
        predicted_ms, predicted_low_ms, predicted_high_ms, bound_by: what the plan says of good software

    Args:
        root: of the bundle.
        target_id: the device of the catalogue; None: this machine is none of them.
        graphs: graph -> ms of one run.
        recipe: that was run.
        variants: graph -> variant that was run.
        und_len: tokens of the prompt.
    """
    if target_id is None:
        return {"target": None, "graphs": {}, "why": "this machine is not in the catalogue of devices"}
    try:
        from motedge.targets.catalog import load_target
        from motedge.targets.plan import PlanOptions

        chosen = set(variants.values())
        variant = chosen.pop() if len(chosen) == 1 else None
        options = PlanOptions(recipe, variant, tuple(graphs), und_len=und_len or None)
        planner = _planner(root, load_target(target_id), options)
        found: dict[str, Any] = {}
        untimed: list[str] = []
        for planned in planner.chosen:
            summary = graphs.get(planned.graph)
            if summary is None or not summary.p50:
                continue
            plan = planner.graph(planned)
            bound_s = None if plan.stage is None else planner.ideal_s(planned)
            found[planned.graph] = _figures(plan, summary, bound_s)
            untimed += [plan.untimed] if plan.untimed else []
    except MotedgeError as error:
        return {"target": target_id, "graphs": {}, "why": error.what}
    return {"target": target_id, "graphs": found, "why": "; ".join(dict.fromkeys(untimed)) or None}


def _planner(root: Path, target: Target, options: PlanOptions) -> Planner:
    """Plans the variant that was run, or what the device would take where a graph of another dialect lacks it."""
    from motedge.targets.plan.figures import GraphFigures
    from motedge.targets.plan.make import Planner

    figures = GraphFigures(Bundle.open(root))
    try:
        return Planner(figures, target, options)
    except BundleError:
        return Planner(figures, target, dataclasses.replace(options, variant=None))


def _figures(plan: GraphPlan, summary: Summary, bound_s: Optional[float]) -> dict[str, Any]:
    measured_s, stage = summary.p50 / 1e3, plan.stage
    return {
        "variant": plan.variant,
        "measured_ms": round(summary.p50, 4),
        "gflop": round(plan.flops / 1e9, 4),
        "moved_gb": round(plan.moved_bytes / 1e9, 4),
        "tflops": round(plan.flops / measured_s / 1e12, 4),
        "gbps": round(plan.moved_bytes / measured_s / 1e9, 4),
        "bound_ms": None if bound_s is None else round(1e3 * bound_s, 4),
        "fraction": None if bound_s is None else round(bound_s / measured_s, 4),
        "bound_by": None if stage is None else stage.bound,
        "predicted_ms": None if stage is None else round(1e3 * stage.time_s, 4),
        "predicted_low_ms": None if stage is None else round(1e3 * stage.low_s, 4),
        "predicted_high_ms": None if stage is None else round(1e3 * stage.high_s, 4),
    }
