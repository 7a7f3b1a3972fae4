"""What the plan says that each cell takes on this device, to stand beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from motedge.bench.candidate import Candidate
from motedge.bench.state import Cell
from motedge.bundle import Bundle
from motedge.errors import MotedgeError
from motedge.runtime.backends import choose_variant
from motedge.runtime.deadline.operating_point import OperatingPoint

# What a tick runs; a bundle's decoder need not come in the variant that is measured
_TICK = ("vae_encoder", "und_prefill", "gen_step", "solver_step")


def predictions(cells: Sequence[Cell], engine: str, target_id: Optional[str]) -> dict[str, dict[str, Any]]:
    """Cell id -> predicted_ms, low_ms and high_ms, or why there are none.

    Args:
        cells: all of them.
        engine: the backend, which chooses the variant where none is asked for.
        target_id: the device of the catalogue; None: this machine is none of them.
    """
    if target_id is None:
        return {cell.id: _unknown("this machine is not in the catalogue of devices") for cell in cells}
    found: dict[str, dict[str, Any]] = {}
    for candidate in dict.fromkeys(cell.candidate for cell in cells):
        points = [cell.point for cell in cells if cell.candidate == candidate]
        try:
            told = _of_candidate(candidate, points, engine, target_id)
        except MotedgeError as error:
            told = [_unknown(error.what)] * len(points)
        found.update({Cell(candidate, point).id: entry for point, entry in zip(points, told)})
    return found


def _of_candidate(
    candidate: Candidate, points: Sequence[OperatingPoint], engine: str, target_id: str
) -> list[dict[str, Any]]:
    from motedge.targets.catalog import load_target
    from motedge.targets.plan import PlanOptions, make_plan
    from motedge.targets.plan.figures import GraphFigures

    bundle, target = Bundle.open(candidate.bundle), load_target(target_id)
    figures, told = GraphFigures(bundle), []
    variant = candidate.variant or _variant_of(bundle, candidate, engine)
    graphs = tuple(graph for graph in bundle.manifest.graphs if graph in _TICK)
    for point in points:
        settings = point.settings
        options = PlanOptions(candidate.recipe, variant, graphs, steps=settings.steps, guidance=settings.guidance)
        plan = make_plan(bundle, target, options=options, figures=figures, advise=False)
        stage = plan.graph("gen_step").stage
        if plan.tick is None or stage is None:
            why = next((graph.untimed for graph in plan.graphs if graph.untimed), "no stage has a predicted time")
            told.append(_unknown(why))
            continue
        planned = plan.tick.points[0]
        # The plan knows neither other intervals nor step caches: a forward more or less costs a forward
        more = point.forwards - planned.forwards
        told.append(
            {
                "predicted_ms": round(1e3 * (planned.tick_s + more * stage.time_s), 4),
                "low_ms": round(1e3 * (planned.low_s + more * stage.low_s), 4),
                "high_ms": round(1e3 * (planned.high_s + more * stage.high_s), 4),
                "why": None,
            }
        )
    return told


def _variant_of(bundle: Bundle, candidate: Candidate, engine: str) -> Optional[str]:
    """Dialect and type of the generator that is run, as the plan names them."""
    chosen = choose_variant(bundle, "gen_step", backend=engine, recipe=candidate.recipe)
    entry = bundle.variant("gen_step", chosen)
    return f"{entry.dialect}-{entry.dtype}"


def _unknown(why: Optional[str]) -> dict[str, Any]:
    return {"predicted_ms": None, "low_ms": None, "high_ms": None, "why": why}
