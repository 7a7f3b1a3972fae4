"""A plan as data: what `motedge plan --json` prints and reads back. Schema motedge.plan/v1."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, TypeVar

from motedge.errors import UsageError
from motedge.targets.legality import Reason

SCHEMA = "motedge.plan/v1"
DEVICE, HOST = "device", "host"
YES, NO, WITHIN_ERROR, UNKNOWN = "yes", "no", "within the error", "unknown"
_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Stage:
    """Predicted time of one run of a graph."""

    time_s: float
    # The interval in which the prediction's error of sources left out puts it
    low_s: float
    high_s: float
    # "compute" or "memory": which side of the roofline takes longer
    bound: str
    compute_s: float
    memory_s: float


@dataclass(frozen=True)
class GraphPlan:
    """One graph on the target."""

    graph: str
    # Variant of the bundle that was read
    variant: str
    # Recipe that was applied in sizes to that variant, since the bundle does not hold its graph; None: read as it is
    applied_recipe: Optional[str]
    dialect: str
    dtype: str
    opset: int
    # Ids of the schemes of its projections
    schemes: tuple[str, ...]
    reasons: tuple[Reason, ...]
    cautions: tuple[Reason, ...]
    # As stored, and in the engine
    weight_bytes: int
    engine_bytes: int
    # At the largest sizes of the profile: as the target's engine runs it, and if every operator wrote its result
    activation_bytes: int
    unfused_activation_bytes: int
    # Operator at which activations are fullest
    activation_peak_at: str
    # At the sizes of a tick
    flops: float
    moved_bytes: float
    # None: the reason is in `untimed`
    stage: Optional[Stage]
    untimed: Optional[str]
    build_peak_bytes: int

    @property
    def legal(self) -> bool:
        """Whether it can be built for the target."""
        return not self.reasons


@dataclass(frozen=True)
class MemoryItem:
    """One use of memory."""

    name: str
    bytes: int
    # DEVICE or HOST
    place: str
    # How it comes about, with mark and source where it is no plain arithmetic
    note: str


@dataclass(frozen=True)
class MemoryPlan:
    """Memory while a policy runs."""

    items: tuple[MemoryItem, ...]
    # While the last engine is loaded: engines, context, and the file of the one that is loaded
    loading_bytes: int
    # Running and loading, whichever is more, of the memory that the device has: both places where they are one
    needed_bytes: int
    # None: the catalogue does not know
    available_bytes: Optional[int]
    available_mark: str
    fits: Optional[bool]

    def total(self, place: str) -> int:
        """Bytes in one place while running."""
        return sum(item.bytes for item in self.items if item.place == place)


@dataclass(frozen=True)
class BuildPlan:
    """Memory and disk of building, one graph at a time."""

    # "on the device" or "on any machine"
    where: str
    peak_bytes: int
    # Graph that needs it
    peak_graph: str
    # None: the machine that builds is not known
    available_bytes: Optional[int]
    fits: Optional[bool]
    # Engines, and with them everything of the bundle that a device needs
    engine_bytes: int
    disk_bytes: int
    note: str


@dataclass(frozen=True)
class OperatingPoint:
    """One way of sampling, and its tick."""

    name: str
    steps: int
    guidance: float
    guidance_interval: Optional[tuple[float, float]]
    # T, latent frames
    frames: int
    forwards: int
    tick_s: float
    low_s: float
    high_s: float
    # Whether a chunk is ready before the last one is used up: YES, NO or WITHIN_ERROR
    in_time: str
    # What it costs beside time, or ""
    note: str


@dataclass(frozen=True)
class TickPlan:
    """Time of a control tick, prompts kept from the tick before."""

    # The bundle's policy, or what was asked for, first
    points: tuple[OperatingPoint, ...]
    # Host work, once a tick
    host_s: float
    host_high_s: float
    # Both prompts: once an instruction
    prefill_s: float
    # chunk / rate: as long as one chunk of actions lasts
    period_s: float
    rate_hz: float
    chunk: int


@dataclass(frozen=True)
class Advice:
    """One change that was tried, and what it gives."""

    change: str
    result: str
    # Whether memory fits and all is legal after it
    fits: Optional[bool]


@dataclass(frozen=True)
class Plan:
    """Everything about one bundle on one target."""

    model: str
    shape_set: str
    target: str
    target_name: str
    recipe: Optional[str]
    # "tensorrt 10.16 (JetPack 7.2.2)"
    library: str
    graphs: tuple[GraphPlan, ...]
    memory: MemoryPlan
    build: BuildPlan
    # None: a stage has no predicted time; the graphs say why
    tick: Optional[TickPlan]
    advice: tuple[Advice, ...]
    # What holds for the whole plan and is not shown to hold on hardware
    notes: tuple[str, ...]

    @property
    def legal(self) -> bool:
        """Whether every graph can be built."""
        return all(graph.legal for graph in self.graphs)

    @property
    def fits(self) -> Optional[bool]:
        """Whether running and building fit; None where the memory is not known."""
        known = [fits for fits in (self.memory.fits, self.build.fits) if fits is not None]
        return None if self.memory.fits is None and all(known) else all(known)

    @property
    def passed(self) -> bool:
        """The gate: legal, and nothing known not to fit."""
        return self.legal and self.fits is not False

    def graph(self, name: str) -> GraphPlan:
        """The plan of one graph; UsageError names those that there are."""
        for graph in self.graphs:
            if graph.graph == name:
                return graph
        raise UsageError(f"the plan has no graph {name!r}", expected=", ".join(g.graph for g in self.graphs))

    def to_dict(self) -> dict[str, Any]:
        """JSON form, verdicts included."""
        verdict = {"legal": self.legal, "fits": self.fits, "passed": self.passed}
        return {"schema": SCHEMA, "verdict": verdict, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Plan:
        """Parses the JSON form; UsageError for another schema or a field that does not fit."""
        if raw.get("schema") != SCHEMA:
            raise UsageError("this is no plan", expected=SCHEMA, got=raw.get("schema"))
        values = {key: value for key, value in raw.items() if key not in ("schema", "verdict")}
        try:
            values["graphs"] = tuple(_graph(entry) for entry in values["graphs"])
            memory = dict(values["memory"])
            memory["items"] = _all(MemoryItem, memory["items"])
            values["memory"], values["build"] = MemoryPlan(**memory), BuildPlan(**values["build"])
            values["tick"] = None if values["tick"] is None else _tick(values["tick"])
            values["advice"], values["notes"] = _all(Advice, values["advice"]), tuple(values["notes"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise UsageError("a plan lacks a field or has one too many", got=str(error)) from error


def _all(part: type[_Part], entries: Sequence[Mapping[str, Any]]) -> tuple[_Part, ...]:
    return tuple(part(**entry) for entry in entries)


def _graph(raw: Mapping[str, Any]) -> GraphPlan:
    values = dict(raw)
    values["schemes"] = tuple(values["schemes"])
    values["reasons"], values["cautions"] = _all(Reason, values["reasons"]), _all(Reason, values["cautions"])
    values["stage"] = None if values["stage"] is None else Stage(**values["stage"])
    return GraphPlan(**values)


def _tick(raw: Mapping[str, Any]) -> TickPlan:
    points = []
    for entry in raw["points"]:
        interval = entry["guidance_interval"]
        points.append(OperatingPoint(**{**entry, "guidance_interval": None if interval is None else tuple(interval)}))
    return TickPlan(**{**raw, "points": tuple(points)})
