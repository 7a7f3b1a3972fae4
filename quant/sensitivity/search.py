"""The search itself: costs of sites and steps, mixtures along the front, and the one that meets the target."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from motedge.quant.sensitivity.executors import Executor
from motedge.quant.sensitivity.ledger import Ledger
from motedge.quant.sensitivity.mixtures import CostModel, metric_of
from motedge.quant.sensitivity.options import SearchOptions
from motedge.quant.sensitivity.space import Space
from motedge.quant.sensitivity.tasks import (
    Assignment,
    MixtureTask,
    SiteTask,
    StepTask,
    Task,
    mixture_id,
    site_id,
    step_id,
)

# Joint measurements that may be spent on meeting a bound on the error
_ATTEMPTS = 6
# A mixture that comes this close to the bound is not grown further
_CLOSE = 0.9
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """One assignment, predicted and measured. Errors are relative L2, not squared."""

    # For people: "uniform fp8", "mixture 3 of 6", ...
    name: str
    # "uniform", "front", "equal-size" or "target"
    kind: str
    assignment: Assignment
    bytes: float
    bits: float
    # The metric: squares of single sites added up; their deviations added up; and measured jointly on the same
    # forwards, None where it can't be computed
    added: float
    predicted: float
    error: float | None
    # Record of the joint measurement
    values: dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """What a search found."""

    points: tuple[Point, ...]
    # Recipe id -> record of each denoising step
    steps: dict[str, list[dict[str, Any]]]
    # One of the points
    chosen: Point
    # Whether `chosen` keeps the bound as measured
    met: bool


class Search:
    """Runs what is missing in the ledger, and reads the rest from it."""

    def __init__(self, space: Space, ledger: Ledger, executor: Executor, options: SearchOptions) -> None:
        self._space, self._ledger, self._executor, self._options = space, ledger, executor, options

    def run(self, steps: int) -> Findings:
        """Everything, in the order in which it is needed.

        Args:
            steps: denoising steps of the loop.

        Raises:
            UsageError: a bound in bytes below the smallest mixture.
        """
        self._measure(site_tasks(self._space), "costs of single projections")
        model = CostModel(self._space, self._ledger.records, self._options.metric)
        # Before hours of joint measurements: a bound that can't be met
        target = self._first_guess(model)
        planned = self._planned(model)
        uniform = {name: model.possible(assignment) for name, assignment in self._space.uniform.items()}
        step_tasks = [
            StepTask(dict(assignment["gen_step"]), step)
            for assignment in uniform.values()
            if assignment.get("gen_step")
            for step in range(steps)
        ]
        joint = [MixtureTask(assignment) for _, _, assignment in planned]
        self._measure([*joint, MixtureTask(target), *step_tasks], "mixtures and denoising steps")
        points = [self._point(model, *entry) for entry in planned]
        points += self._towards_target(model, target)
        chosen = self._choose(points)
        records = {
            name: [
                {"step": step, **self._ledger.records[step_id(assignment["gen_step"], step)]} for step in range(steps)
            ]
            for name, assignment in uniform.items()
            if assignment.get("gen_step")
        }
        return Findings(tuple(points), records, chosen, self._keeps(chosen))

    def _measure(self, tasks: Sequence[Task], what: str) -> None:
        missing = _missing(tasks, self._ledger)
        if not missing:
            return
        _log.info("%s: %d of %d to be measured", what, len(missing), len(tasks))
        for number, records in enumerate(self._executor.run(missing), 1):
            self._ledger.add(records)
            _log.info("%s: %d of %d", what, number, len(missing))

    def _planned(self, model: CostModel) -> list[tuple[str, str, Assignment]]:
        """Uniform recipes, mixtures of their sizes, and mixtures between the smallest and everything unquantized."""
        planned = []
        for name, assignment in self._space.uniform.items():
            own = model.possible(assignment)
            planned.append((f"uniform {name}", "uniform", own))
            planned.append((f"mixture as small as {name}", "equal-size", model.within_bytes(self._space.bytes_of(own))))
        least, most, count = model.least_bytes, model.plain_bytes, self._options.front
        for number in range(count):
            limit = least + (most - least) * number / count
            planned.append((f"mixture {number + 1} of {count}", "front", model.within_bytes(limit)))
        # A mixture that two bounds give is one point
        seen: set[str] = set()
        unique = []
        for name, kind, assignment in planned:
            key = "" if kind == "uniform" else mixture_id(assignment)
            if not key or key not in seen:
                unique.append((name, kind, assignment))
            seen.add(key)
        return unique

    def _first_guess(self, model: CostModel) -> Assignment:
        target = self._options.target
        limit = target.bytes_for(self._space.weights)
        return model.within_error((target.max_error or 0.0) ** 2) if limit is None else model.within_bytes(limit)

    def _towards_target(self, model: CostModel, first: Assignment) -> list[Point]:
        """Mixtures tried for the target; for a bound on the error, corrected by what is measured."""
        made = [self._point(model, "mixture for the target", "target", first)]
        limit = self._options.target.max_error
        if limit is None:
            return made
        bound = limit**2
        for _ in range(_ATTEMPTS - 1):
            error = made[-1].error
            if error is not None and _CLOSE * limit <= error <= limit:
                break
            # Errors that add up otherwise than predicted do so by about the same factor nearby
            factor = 0.25 if error is None else min((limit / max(error, 1e-9)) ** 2, 4.0)
            bound *= factor * (0.98 if factor < 1 else 1.0)
            assignment = model.within_error(bound)
            if any(mixture_id(assignment) == mixture_id(point.assignment) for point in made):
                break
            self._measure([MixtureTask(assignment)], "mixture for the target")
            made.append(self._point(model, "mixture for the target", "target", assignment))
        return made

    def _choose(self, points: Sequence[Point]) -> Point:
        """The best that was measured: among all that keep the bound, else the nearest to it."""
        keeping = [point for point in points if self._keeps(point)]
        if self._options.target.max_error is None:
            return min(keeping, key=lambda point: (_or_inf(point.error), point.bytes))
        if keeping:
            return min(keeping, key=lambda point: (point.bytes, _or_inf(point.error)))
        return min(points, key=lambda point: (_or_inf(point.error), point.bytes))

    def _keeps(self, point: Point) -> bool:
        target = self._options.target
        limit = target.bytes_for(self._space.weights)
        if limit is None:
            return point.error is not None and point.error <= (target.max_error or 0.0)
        return point.bytes <= limit

    def _point(self, model: CostModel, name: str, kind: str, assignment: Assignment) -> Point:
        values = self._ledger.records[mixture_id(assignment)]
        size = self._space.bytes_of(assignment)
        error = None if "impossible" in values else math.sqrt(metric_of(values, self._options.metric))
        bits = 8 * size / self._space.weights
        added, predicted = math.sqrt(model.added(assignment)), math.sqrt(model.predict(assignment))
        return Point(name, kind, assignment, size, bits, added, predicted, error, values)


def site_tasks(space: Space) -> list[SiteTask]:
    """One task a site, from the first layer up: a worker's towers then only roll forward."""
    tasks = [
        SiteTask(choice.graph, choice.site.name, choice.site.layer, choice.schemes)
        for choice in space.choices
        if choice.schemes
    ]
    return sorted(tasks, key=lambda task: (task.layer, task.graph, task.site))


def _missing(tasks: Sequence[Task], ledger: Ledger) -> list[Task]:
    """What the ledger lacks, each once."""
    found: dict[str, Task] = {}
    for task in tasks:
        if isinstance(task, SiteTask):
            schemes = tuple(s for s in task.schemes if site_id(task.graph, task.site, s) not in ledger.records)
            if schemes:
                found[task.ids()[0]] = SiteTask(task.graph, task.site, task.layer, schemes)
        elif task.ids()[0] not in ledger.records:
            found[task.ids()[0]] = task
    return list(found.values())


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value
