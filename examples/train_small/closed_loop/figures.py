"""From single drives to the figures of each row, and from rows to comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import numpy as np

from examples.train_small.closed_loop.journal import Journal
from examples.train_small.closed_loop.rows import EXPERT, HARDER, NO_BUNDLE, NOMINAL, POINT, REFERENCE, UNTRAINED, Row
from examples.train_small.closed_loop.statistics import paired, rank_correlation
from examples.train_small.drive.score import DONE, wilson
from examples.train_small.road.instructions import BEHAVIOURS
from motedge.profile.statistics import Summary


def collect(rows: Sequence[Row], journal: Journal) -> dict[str, Any]:
    """The result's figures: rows, pairs, correlations. Rows of which nothing was driven are left out.

    Returns:
        rows: as `row_figures`
        pairs: what changes against the reference on the same drives
        correlations: of errors and success over rows
    """
    found = {row: _drives(row, journal) for row in rows}
    driven = {row: drives for row, drives in found.items() if drives}
    figures = [row_figures(row, drives, journal.open_loop.get(row.model)) for row, drives in driven.items()]
    return {"rows": figures, "pairs": _pairs(driven), "correlations": _correlations(figures)}


def row_figures(
    row: Row, drives: Sequence[Mapping[str, Any]], open_loop_m: Optional[Sequence[float]]
) -> dict[str, Any]:
    """One row's figures.

    Returns:
        success: share, with Wilson's interval; by_behaviour: successes and drives of each
        progress: mean way over the expert's; off_s: mean of the longest time off the road
        line_m: mean distance from the line that was told, all but "stop", after 3 s
        stopping_m: mean way of the drives that were to stop and did
        error_m: mean distance of plans from the expert's from where the car then was
        open_loop_m: the same on the held-out pictures: mean, and 90th percentile
        plan_ms: p50, p99, count
        done: behaviour told -> behaviour driven -> drives
    """
    successes = sum(bool(drive["success"]) for drive in drives)
    low, high = wilson(successes, len(drives))
    times = Summary.of([value for drive in drives for value in drive["plan_ms"]])
    by: dict[str, list[Mapping[str, Any]]] = {
        name: [drive for drive in drives if drive["behaviour"] == name] for name in BEHAVIOURS
    }
    stops = [drive["way_m"] for drive in by["stop"] if drive["success"]]
    return {
        "row": row.id,
        "driver": row.driver,
        "point": row.point,
        "condition": row.condition,
        "drives": len(drives),
        "planned": len(row.drives()),
        "successes": successes,
        "success": round(successes / len(drives), 4),
        "interval": [round(low, 4), round(high, 4)],
        "by_behaviour": {name: [sum(bool(d["success"]) for d in some), len(some)] for name, some in by.items()},
        "progress": _mean(drive["progress"] for drive in drives),
        "off_s": _mean(drive["off_s"] for drive in drives),
        "line_m": _mean(drive["line_m"] for drive in drives if drive["line_m"] is not None),
        "stopping_m": _mean(stops) if stops else None,
        "error_m": _mean(drive["error_m"] for drive in drives),
        "open_loop_m": None
        if not open_loop_m
        else {
            "mean": _mean(open_loop_m),
            "p90": round(float(np.percentile(open_loop_m, 90)), 4),
            "count": len(open_loop_m),
        },
        "plan_ms": None
        if times is None
        else {
            "p50": round(times.p50, 2),
            "p99": None if times.p99 is None else round(times.p99, 2),
            "count": times.count,
        },
        "done": {
            name: {done: n for done in DONE if (n := sum(drive["done"] == done for drive in some))}
            for name, some in by.items()
        },
    }


def _drives(row: Row, journal: Journal) -> list[dict[str, Any]]:
    keys = [(row.id, seed, behaviour) for seed, behaviour in row.drives()]
    return [journal.drives[key] for key in keys if key in journal.drives]


def _pairs(driven: Mapping[Row, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Each row against the reference at its usual point under the same conditions, and each condition against none."""
    successes = {
        row: {(drive["seed"], drive["behaviour"]): bool(drive["success"]) for drive in drives}
        for row, drives in driven.items()
    }
    known = {(row.driver, row.point, row.condition): row for row in driven}
    pairs = []
    for row in driven:
        alike = known.get((REFERENCE, POINT, row.condition))
        without = known.get((row.driver, row.point, NOMINAL))
        against = alike if row.driver != REFERENCE or row.point != POINT else without
        if row.driver in (EXPERT, UNTRAINED) or against is None or against is row:
            continue
        found = paired(successes[against], successes[row])
        if found is not None:
            pairs.append({"first": against.id, "second": row.id, **found.to_dict()})
    return pairs


def _correlations(figures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    models = [row for row in figures if row["driver"] != EXPERT and row["open_loop_m"] is not None]
    trained = [row for row in models if row["driver"] not in (*NO_BUNDLE, UNTRAINED)]
    groups = {
        "all that drove as trained, the untrained and the blind included": _under(models, NOMINAL),
        "recipes and operating points, as trained": _under(trained, NOMINAL),
        **{f"recipes, {name}": [row for row in _under(trained, name) if row["point"] == POINT] for name in HARDER},
        "one model under all conditions": [
            row for row in trained if row["driver"] == REFERENCE and row["point"] == POINT
        ],
    }
    errors: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "open loop": lambda row: float(row["open_loop_m"]["mean"]),
        "on the way": lambda row: float(row["error_m"]),
    }
    return [
        {
            "over": name,
            "error": error,
            "with": outcome,
            **rank_correlation([of(row) for row in some], [float(row[outcome]) for row in some]).to_dict(),
        }
        for name, some in groups.items()
        for error, of in errors.items()
        for outcome in ("success", "line_m")
    ]


def _under(rows: Sequence[Mapping[str, Any]], condition: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["condition"] == condition]


def _mean(values: Any) -> float:
    return round(float(np.mean(list(values))), 4)
