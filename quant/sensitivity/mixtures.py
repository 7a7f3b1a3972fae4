"""From costs to mixtures: predictions from what single sites do, and the best assignment of a size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from motedge.quant.sensitivity.allocation import Option, allocate
from motedge.quant.sensitivity.exchange import Entries, Places, improve
from motedge.quant.sensitivity.sketch import Vector, unpack
from motedge.quant.sensitivity.space import NONE, Space
from motedge.quant.sensitivity.tasks import Assignment, Records, site_id

# The search for a size ends when it is known to this share of the unquantized one
_SIZE_STEP = 5e-4


def metric_of(values: Mapping[str, Any], metric: str) -> float:
    """The error squared that a search minimises; see SearchOptions.metric."""
    action = float(values["action"])
    return action if metric == "action" else (action + float(values["vision"])) / 2


class CostModel:
    """Errors of single sites, added up: exact where quantization errors are small."""

    def __init__(self, space: Space, records: Records, metric: str) -> None:
        """`records`: with every site's costs; a scheme that was found impossible for a site is not offered to it."""
        self._space = space
        # By site: scheme -> cost, "none" first; and the number of its first entry
        self._costs: list[dict[str, float]] = []
        vectors: list[Vector] = []
        for choice in space.choices:
            measured = {scheme: records[site_id(choice.graph, choice.site.name, scheme)] for scheme in choice.schemes}
            possible = {scheme: values for scheme, values in measured.items() if "impossible" not in values}
            costs = {scheme: metric_of(values, metric) for scheme, values in possible.items()}
            self._costs.append({NONE: 0.0, **costs})
            vectors += [np.zeros(0), *(_deviation(values, metric) for values in possible.values())]
        self._names = [name for costs in self._costs for name in costs]
        self._first = np.cumsum([0, *(len(costs) for costs in self._costs)])[:-1]
        site = np.repeat(np.arange(len(self._costs)), [len(costs) for costs in self._costs])
        sizes = [c.bytes_as(name) for c, costs in zip(space.choices, self._costs, strict=True) for name in costs]
        length = max(vector.size for vector in vectors)
        rows = np.stack([vector if vector.size else np.zeros(length) for vector in vectors])
        gram = rows @ rows.T
        self._plain = Entries(site, np.array(sizes), gram)
        self._entries = Entries.believed(site, np.array(sizes), gram)

    @property
    def least_bytes(self) -> float:
        """Bytes of the smallest mixture."""
        return sum(
            min(choice.bytes_as(scheme) for scheme in costs)
            for choice, costs in zip(self._space.choices, self._costs, strict=True)
        )

    @property
    def plain_bytes(self) -> float:
        """Bytes with nothing quantized."""
        return self._space.bytes_of({})

    def added(self, assignment: Assignment) -> float:
        """Sum of the sites' errors squared, as if they had nothing in common."""
        return sum(self._costs[number][self._scheme(number, assignment)] for number in range(len(self._costs)))

    def predict(self, assignment: Assignment) -> float:
        """Error squared of the sum of the sites' deviations."""
        return max(self._plain.energy(self._chosen(assignment)), 0.0)

    def possible(self, assignment: Assignment) -> Assignment:
        """The assignment without what was found impossible."""
        kept: dict[str, dict[str, str]] = {}
        for choice, costs in zip(self._space.choices, self._costs, strict=True):
            scheme = assignment.get(choice.graph, {}).get(choice.site.name, NONE)
            if scheme != NONE and scheme in costs:
                kept.setdefault(choice.graph, {})[choice.site.name] = scheme
        return kept

    def within_bytes(self, limit: float) -> Assignment:
        """Least predicted error with at most `limit` bytes.

        The additive optimum and the uniform recipes that fit are each improved by exchanges; the best of them is taken.

        Raises:
            UsageError: even the smallest mixture is larger; says how large it is.
        """
        self._space.check_bytes(limit, self.least_bytes)
        uniform = [self.possible(assignment) for assignment in self._space.uniform.values()]
        fitting = [self._chosen(assignment) for assignment in uniform if self._space.bytes_of(assignment) <= limit]
        improved = [improve(self._entries, start, limit) for start in (self._additive(limit), *fitting)]
        return self._assignment(min(improved, key=self._entries.energy))

    def within_error(self, limit: float) -> Assignment:
        """Least bytes with a predicted error squared of at most `limit`, by bisection over the size."""
        best: Assignment = {}
        low, high = self.least_bytes, self.plain_bytes
        while high - low > _SIZE_STEP * self.plain_bytes:
            middle = (low + high) / 2
            found = self.within_bytes(middle)
            if self._entries.energy(self._chosen(found)) <= limit:
                best, high = found, min(middle, self._space.bytes_of(found))
            else:
                low = middle
        smallest = self.within_bytes(self.least_bytes)
        return smallest if self._entries.energy(self._chosen(smallest)) <= limit else best

    def _additive(self, limit: float) -> Places:
        """The optimum as if errors had nothing in common."""
        sites = [
            [Option(cost, choice.bytes_as(scheme)) for scheme, cost in costs.items()]
            for choice, costs in zip(self._space.choices, self._costs, strict=True)
        ]
        chosen: Places = self._first + np.array(allocate(sites, limit))
        return chosen

    def _scheme(self, number: int, assignment: Assignment) -> str:
        choice = self._space.choices[number]
        return assignment.get(choice.graph, {}).get(choice.site.name, NONE)

    def _chosen(self, assignment: Assignment) -> Places:
        """Entries of an assignment."""
        return np.array(
            [
                first + list(costs).index(self._scheme(number, assignment))
                for number, (first, costs) in enumerate(zip(self._first, self._costs, strict=True))
            ]
        )

    def _assignment(self, chosen: Places) -> Assignment:
        made: dict[str, dict[str, str]] = {}
        for choice, entry in zip(self._space.choices, chosen, strict=True):
            if self._names[entry] != NONE:
                made.setdefault(choice.graph, {})[choice.site.name] = self._names[entry]
        return made


def _deviation(values: Mapping[str, Any], metric: str) -> Vector:
    """A site's deviation, its length that of its cost: sketches and rounding change it a little."""
    parts = [unpack(values["action_deviation"])]
    if metric != "action":
        parts.append(unpack(values["vision_deviation"]))
    whole = np.concatenate(parts)
    length = float(np.square(whole).sum())
    return whole * np.sqrt(metric_of(values, metric) / length) if length else whole
