"""What is driven: a driver at an operating point under conditions, over fixed roads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from examples.train_small.drive.drive import Conditions
from examples.train_small.road.instructions import BEHAVIOURS, CANONICAL, HELD_OUT
from motedge.errors import UsageError, closest

# Of the roads that no training and no choice of a checkpoint has seen (decision 16)
FIRST_SEED = 200_000
SEEDS = 25
EXPERT, STRAIGHT, UNTRAINED, REFERENCE = "expert", "straight ahead", "untrained", "fp32"
# Drivers that are no bundle
NO_BUNDLE = (EXPERT, STRAIGHT)
WORDS: Mapping[str, Mapping[str, str]] = {"canonical": CANONICAL, "held-out": HELD_OUT}
# Operating points: fields of SamplerSettings that differ from 4 steps, shift 5, guidance 1
POINTS: Mapping[str, Mapping[str, Any]] = {
    "4 steps": {},
    "1 step": {"steps": 1},
    "2 steps": {"steps": 2},
    "8 steps": {"steps": 8},
    "guidance 3": {"guidance": 3.0},
    # Of the four noise levels (t of 1000, 937, 833 and 625) the last two
    "guidance 3 where 400 < t < 900": {"guidance": 3.0, "guidance_interval": (400.0, 900.0)},
    "step cache every:2": {"step_cache": "every:2"},
    "step cache steps:1,2": {"step_cache": "steps:1,2"},
}
POINT = "4 steps"
CONDITIONS: Mapping[str, Conditions] = {
    "as trained": Conditions(),
    "100 ms late": Conditions(latency_s=0.1),
    "200 ms late": Conditions(latency_s=0.2),
    "400 ms late": Conditions(latency_s=0.4),
    "800 ms late": Conditions(latency_s=0.8),
    "1200 ms late": Conditions(latency_s=1.2),
    "25 % dropped": Conditions(dropped=0.25),
    "50 % dropped": Conditions(dropped=0.5),
    "75 % dropped": Conditions(dropped=0.75),
    "start at the edge": Conditions(beside_m=6.0, askew_rad=0.3),
    "a plan every 1.4 s": Conditions(every=14),
    "held-out words": Conditions(),
}
NOMINAL = "as trained"


@dataclass(frozen=True)
class Row:
    """One row of the table: as many drives as roads times behaviours."""

    # A bundle's name, or one of NO_BUNDLE
    driver: str
    # One of POINTS
    point: str = POINT
    # One of CONDITIONS
    condition: str = NOMINAL
    # Roads; each is driven once for every behaviour
    seeds: int = SEEDS
    # Sampler and conditions of these names
    sampler: Mapping[str, Any] = field(init=False, compare=False)
    how: Conditions = field(init=False, compare=False)

    def __post_init__(self) -> None:
        for name, known in ((self.point, POINTS), (self.condition, CONDITIONS)):
            if name not in known:
                raise UsageError(f"unknown row {name!r}", fix=closest(name, tuple(known)))
        if not 1 <= self.seeds <= 1000:
            raise UsageError("the number of roads is wrong", expected="1 to 1000", got=self.seeds)
        object.__setattr__(self, "sampler", {"guidance": 1.0, **POINTS[self.point]})
        object.__setattr__(self, "how", CONDITIONS[self.condition])

    @property
    def id(self) -> str:
        """The row's name in journal and JSON."""
        return ", ".join((self.driver, self.point, self.condition)) if self.driver not in NO_BUNDLE else self._alone()

    @property
    def model(self) -> str:
        """Driver and operating point: what has one open-loop error, whatever the conditions."""
        return self.driver if self.driver in NO_BUNDLE else f"{self.driver}, {self.point}"

    def instruction(self, behaviour: str) -> str:
        """The words for a behaviour."""
        return WORDS["held-out" if self.condition == "held-out words" else "canonical"][behaviour]

    def drives(self) -> list[tuple[int, str]]:
        """Seeds and behaviours, road after road."""
        return [(FIRST_SEED + number, name) for number in range(self.seeds) for name in BEHAVIOURS]

    def _alone(self) -> str:
        return f"{self.driver}, {self.condition}"


# Under which every recipe is driven, beside as trained: where plans that are a little off may begin to matter
HARDER = ("start at the edge", "a plan every 1.4 s", "held-out words")


def plan_rows(bundles: Collection[str], seeds: int = SEEDS, only: Optional[Sequence[str]] = None) -> list[Row]:
    """The rows of the table for the bundles at hand.

    Args:
        bundles: Names; REFERENCE is driven at every operating point and under all conditions, the others at one
            operating point and the harder conditions.
        seeds: Roads of each row.
        only: Keeps the rows whose id holds one of these texts; None: all.

    Raises:
        UsageError: nothing is left, or two bundles have one name.
    """
    rows = [Row(EXPERT), Row(STRAIGHT)]
    if REFERENCE in bundles:
        rows += [Row(REFERENCE, point) for point in POINTS]
        rows += [Row(REFERENCE, POINT, condition) for condition in CONDITIONS if condition != NOMINAL]
        rows += [Row(EXPERT, POINT, condition) for condition in CONDITIONS if condition in _EXPERTS]
    for name in bundles:
        if name == UNTRAINED:
            rows.append(Row(name))
        elif name != REFERENCE:
            rows += [Row(name, POINT, condition) for condition in (NOMINAL, *HARDER)]
    kept = [replace(row, seeds=seeds) for row in rows if only is None or any(text in row.id for text in only)]
    if not kept:
        raise UsageError(
            "no row is left to drive",
            got=", ".join(only or ()),
            fix="give a part of a row's name, such as 'fp32, 4 steps'",
        )
    return kept


# Conditions that cost the expert something too: what is lost there is not the model's
_EXPERTS = ("1200 ms late", "50 % dropped", "75 % dropped", "start at the edge", "a plan every 1.4 s")


def models_of(rows: Sequence[Row]) -> dict[str, Row]:
    """One row for each model, by its name."""
    return {row.model: row for row in reversed(rows)}
