"""What to change when a plan does not fit or is too slow: alternatives are planned, and those that help are named.

Nothing is said that was not worked out: each piece of advice is a plan of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Optional

from motedge.errors import MotedgeError
from motedge.quant.recipe import builtin_recipes
from motedge.targets.catalog import Target, targets
from motedge.targets.catalog.model import UNVERIFIED
from motedge.targets.plan.choice import held_recipes
from motedge.targets.plan.figures import GraphFigures
from motedge.targets.plan.memory import plan_memory
from motedge.targets.plan.model import NO, WITHIN_ERROR, YES, Advice, MemoryPlan, OperatingPoint, Plan, TickPlan
from motedge.units import format_bytes, format_ms

if TYPE_CHECKING:
    from motedge.targets.plan.make import Planner, PlanOptions

# Recipes that are named, the closest to the original first
_MOST_RECIPES = 3


def find_advice(figures: GraphFigures, target: Target, options: PlanOptions, plan: Plan) -> list[Advice]:
    """What helps, in the order in which one would try it; [] where nothing needs to change."""
    late = plan.tick if plan.tick is not None and plan.tick.points[0].in_time != YES else None
    if plan.passed and late is None:
        return []
    found = list(_recipes(figures, target, options, plan))
    if not plan.passed:
        found += _memory(figures, target, options, plan)
        found += _siblings(figures, target, options, plan)
    elif late is not None:
        found += _sampling(figures, target, options, plan, late)
    return found


def _planned(figures: GraphFigures, target: Target, options: PlanOptions) -> Optional[Plan]:
    """A plan of an alternative; None where it is none: a recipe whose rules do not match, no variant, no library."""
    from motedge.targets.plan.make import make_plan

    try:
        return make_plan(figures.bundle, target, options=options, figures=figures, advise=False)
    except MotedgeError:
        return None


def _recipes(figures: GraphFigures, target: Target, options: PlanOptions, plan: Plan) -> Iterator[Advice]:
    """Recipes that make it pass, largest weights first, where errors are least; or faster, where it passes."""
    tried = []
    for name in dict.fromkeys((*held_recipes(figures.bundle), *builtin_recipes())):
        if name == options.recipe:
            continue
        other = _planned(figures, target, dataclasses.replace(options, recipe=name))
        if other is not None and other.passed and _helps(plan, other):
            tried.append((name, other))
    tried.sort(key=lambda entry: -sum(graph.weight_bytes for graph in entry[1].graphs))
    if plan.passed:
        tried.sort(key=lambda entry: entry[1].tick.points[0].tick_s if entry[1].tick is not None else 0.0)
    held = held_recipes(figures.bundle)
    for name, other in tried[:_MOST_RECIPES]:
        how = "which the bundle has" if name in held else f"motedge quantize BUNDLE --recipe {name} --out BUNDLE2"
        yield Advice(f"recipe {name} ({how})", _result(other), other.fits)


def _helps(plan: Plan, other: Plan) -> bool:
    if not plan.passed:
        return True
    return (
        plan.tick is not None
        and other.tick is not None
        and other.tick.points[0].tick_s < 0.95 * plan.tick.points[0].tick_s
    )


def _memory(figures: GraphFigures, target: Target, options: PlanOptions, plan: Plan) -> Iterator[Advice]:
    """Ways of running the same engines in less memory."""
    if not plan.legal or plan.memory.fits is not False:
        return
    planner = _planner(figures, target, options)

    def memory(**changed: bool) -> MemoryPlan:
        return plan_memory(figures.bundle, target, plan.graphs, branches=planner.sampling.branches, **changed)

    without = memory(keep_prefill=False)
    yield Advice(
        "unload und_prefill once the instruction is known, and load it again for another one",
        _memory_result(without),
        without.fits,
    )
    if not target.unified_memory:
        streamed = memory(stream_weights=True)
        yield Advice(
            "stream gen_step's weights (motedge build --weight-streaming)", _memory_result(streamed), streamed.fits
        )


def _siblings(figures: GraphFigures, target: Target, options: PlanOptions, plan: Plan) -> Iterator[Advice]:
    """The smallest device of the same kind on which the plan passes as it is."""
    room = target.memory_gb.value or 0.0
    # What is announced and not sold yet helps nobody
    sold = [t for t in targets().values() if t.memory_gb.mark != UNVERIFIED]
    others = [t for t in sold if t.kind == target.kind and (t.memory_gb.value or 0.0) >= room]
    changed = dataclasses.replace(options, tensorrt=None)
    # Of the same class first: another one's speed is another
    order = {t.id: (t.architecture != target.architecture, t.memory_gb.value or 0.0, t.id) for t in others}
    for other in sorted(others, key=lambda t: order[t.id]):
        if other.id != target.id:
            found = _planned(figures, other, changed)
            if found is not None and found.passed:
                yield Advice(f"a larger device: {other.id}", _result(found), found.fits)
                return


def _sampling(
    figures: GraphFigures, target: Target, options: PlanOptions, plan: Plan, tick: TickPlan
) -> Iterator[Advice]:
    """Cheaper ways of sampling that are in time: those that were planned beside, then fewer frames."""
    first = tick.points[0]
    for point in tick.points[1:]:
        if point.in_time == YES and point.tick_s < first.tick_s:
            words = f"{point.name}: {point.steps} steps, {point.forwards} forwards"
            yield Advice(words, _point_result(point), plan.fits)
    low = figures.bundle.contract("gen_step").profile["T"][0]
    for frames in range(first.frames - 1, low - 1, -1):
        found = _planned(figures, target, dataclasses.replace(options, frames=frames))
        if found is not None and found.tick is not None and found.tick.points[0].in_time == YES:
            words = f"--frames {frames} in place of {first.frames} latent frames: the model was not trained for it"
            yield Advice(words, _point_result(found.tick.points[0]), found.fits)
            return


def _planner(figures: GraphFigures, target: Target, options: PlanOptions) -> Planner:
    from motedge.targets.plan.make import Planner

    return Planner(figures, target, options)


def _result(plan: Plan) -> str:
    tick = "" if plan.tick is None else f"; {_point_result(plan.tick.points[0])}"
    return f"{_memory_result(plan.memory)}{tick}"


def _memory_result(memory: MemoryPlan) -> str:
    if memory.available_bytes is None:
        return f"needs {format_bytes(memory.needed_bytes)}"
    verdict = "fits" if memory.fits else "does not fit"
    return f"{verdict}: needs {format_bytes(memory.needed_bytes)} of {format_bytes(memory.available_bytes)}"


def _point_result(point: OperatingPoint) -> str:
    words: dict[str, str] = {YES: "in time", NO: "too slow", WITHIN_ERROR: "in time or not, within the error"}
    span = f"{format_ms(1000 * point.low_s)} to {format_ms(1000 * point.high_s)}"
    return f"tick {format_ms(1000 * point.tick_s)} ({span}), {words[point.in_time]}"
