"""sensitivity.json: everything that a search found, with what it was measured on. Schema motedge.sensitivity/v1."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from motedge.quant.recipe import GraphRecipe, Recipe, Rule
from motedge.quant.schemes import SCHEMES
from motedge.quant.sensitivity.mixtures import metric_of
from motedge.quant.sensitivity.options import SearchOptions
from motedge.quant.sensitivity.rules import all_schemes, compact_rules
from motedge.quant.sensitivity.search import Findings, Point
from motedge.quant.sensitivity.space import GRAPHS, NONE, Space
from motedge.quant.sensitivity.tasks import Records, site_id
from motedge.quant.sensitivity.workload import Workload
from motedge.runtime.schedule import FlowSchedule

SCHEMA = "motedge.sensitivity/v1"
MIXED = "mixed"
# What a reader must know before believing the numbers
CAVEATS = (
    "Costs are errors of the generator's velocities with everything before them as recorded (teacher forcing), each "
    "forward weighted by what the solver and guidance make of its velocity in the result; the held-out columns let "
    "errors run through the whole denoising loop.",
    "The prediction adds up the deviations that single projections cause, and takes the error of the sum; beside it "
    "stand the sum of their squares, which ignores what two projections have in common, and what was measured jointly.",
    "How far actions are from the unquantized model's does not predict task success.",
    "Predicted time is not available: no target gives one yet, so mixtures are compared by bytes alone.",
    "Bytes are those of the projections that may be quantized; embeddings, norms, in and out heads stay as they are.",
    "Step costs quantize the generator alone: the reasoner runs before the first step.",
)


def make_report(
    space: Space, findings: Findings, records: Records, workload: Workload, options: SearchOptions
) -> dict[str, Any]:
    """The part of the document that the search determines; JSON."""
    settings = workload.settings
    timesteps = [int(t) for t in FlowSchedule(settings.steps, settings.shift).timesteps]
    return {
        "metric": options.metric,
        "target": {"words": options.target.in_words(), **vars(options.target)},
        "weights": space.weights,
        "schemes": {
            name: {"weight_bits": SCHEMES[name].weight_bits, "least_sm": SCHEMES[name].least_sm}
            for name in dict.fromkeys(s for choice in space.choices for s in choice.schemes)
        },
        "forwards": workload.strata(),
        "held_out": len(workload.held_out),
        "sites": [_site(choice, records, options.metric) for choice in space.choices],
        "steps": {
            recipe: [_step(entry, timesteps[entry["step"]]) for entry in entries]
            for recipe, entries in findings.steps.items()
        },
        "points": [point_summary(point) for point in findings.points],
        "chosen": _chosen(space, findings),
        "predicted_time": None,
        "notes": [*space.notes],
        "caveats": list(CAVEATS),
    }


def point_summary(point: Point) -> dict[str, Any]:
    """One point without its assignment. Errors are relative L2; held-out ones the root of the mean square."""
    values = point.values
    known = "impossible" not in values
    return {
        "name": point.name,
        "kind": point.kind,
        "bytes": math.ceil(point.bytes),
        "bits": point.bits,
        "schemes": dict(sorted(Counter(s for sites in point.assignment.values() for s in sites.values()).items())),
        "added": point.added,
        "predicted": point.predicted,
        "error": point.error,
        "action": math.sqrt(values["action"]) if known else None,
        "vision": math.sqrt(values["vision"]) if known else None,
        "held_out_chunk": root_mean(values["chunk"]) if known else None,
        "held_out_latent": root_mean(values["latent"]) if known else None,
        **({} if known else {"impossible": values["impossible"]}),
    }


def mixed_recipe(space: Space, findings: Findings, options: SearchOptions) -> Recipe | None:
    """The chosen assignment as a recipe; None where nothing is quantized."""
    chosen = findings.chosen
    graphs = {}
    for graph in GRAPHS:
        if not chosen.assignment.get(graph):
            continue
        sites = [choice.site.name for choice in space.choices if choice.graph == graph]
        default, rules = compact_rules(all_schemes(sites, chosen.assignment[graph]))
        graphs[graph] = GraphRecipe(default, tuple(Rule(*rule) for rule in rules))
    if not graphs:
        return None
    recipes = ", ".join(space.uniform)
    summary = f"per projection from {recipes}: {options.target.in_words()}; {chosen.bits:.3f} bits a weight"
    return Recipe(MIXED, 1, summary, graphs)


def root_mean(squares: Sequence[float]) -> float:
    """Root of the mean of squared errors."""
    return math.sqrt(sum(squares) / len(squares))


def _site(choice: Any, records: Records, metric: str) -> dict[str, Any]:
    costs: dict[str, Any] = {}
    for scheme in choice.schemes:
        values = records[site_id(choice.graph, choice.site.name, scheme)]
        if "impossible" in values:
            costs[scheme] = dict(values)
        else:
            errors = {name: values[name] for name in ("vision", "action")}
            costs[scheme] = {**errors, "cost": metric_of(values, metric)}
    return {
        "graph": choice.graph,
        "site": choice.site.name,
        "layer": choice.site.layer,
        "projection": choice.site.projection,
        "weights": choice.site.parameters,
        "costs": costs,
    }


def _step(entry: Mapping[str, Any], t: int) -> dict[str, Any]:
    if "impossible" in entry:
        return {"step": entry["step"], "t": t, "impossible": entry["impossible"]}
    return {
        "step": entry["step"],
        "t": t,
        "chunk": root_mean(entry["chunk"]),
        "latent": root_mean(entry["latent"]),
    }


def _chosen(space: Space, findings: Findings) -> dict[str, Any]:
    chosen = findings.chosen
    per_site = {
        graph: {
            choice.site.name: chosen.assignment.get(graph, {}).get(choice.site.name, NONE)
            for choice in space.choices
            if choice.graph == graph
        }
        for graph in GRAPHS
    }
    return {**point_summary(chosen), "met": findings.met, "assignment": per_site}
