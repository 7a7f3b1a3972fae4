"""Which number formats a device can run: a rule by compute capability, as data with sources (data/_precisions.toml)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from motedge.errors import UsageError, closest
from motedge.targets.catalog.files import data_files
from motedge.targets.catalog.model import Figure, Target
from motedge.targets.catalog.read import known_keys, parse_toml

# How onnxruntime on a CPU takes a format
RUNS, EMULATED, REFUSED = CPU_STATES = ("runs", "emulated", "refused")
_SOURCE = "targets/data/_precisions.toml"


@dataclass(frozen=True)
class Precision:
    """One number format."""

    # "fp16", "int4"
    id: str
    # Least compute capability of a GPU that TensorRT runs it on
    least_sm: Figure
    # Of what: "weights and activations" or "weights alone"
    scope: str
    # One of CPU_STATES, and the reason
    cpu: str
    cpu_source: str

    def legal(self, target: Target) -> bool:
        """Whether the device runs it, be it in an emulation."""
        sm = target.compute_capability
        if sm is None:
            return self.cpu != REFUSED
        return self.least_sm.value is not None and sm >= self.least_sm.value


@functools.lru_cache(maxsize=1)
def precisions() -> Mapping[str, Precision]:
    """All formats, by id."""
    return parse_precisions(data_files()["_precisions.toml"], _SOURCE)


def legal_precisions(target: Target) -> tuple[str, ...]:
    """The formats that a device runs, in the catalogue's order."""
    return tuple(precision.id for precision in precisions().values() if precision.legal(target))


def parse_precisions(text: str, source: str) -> Mapping[str, Precision]:
    """Formats from TOML, a table each; UsageError as in `parse_target`."""
    found = {}
    for name, raw in parse_toml(text, source).items():
        where = f"{source}: {name}"
        keys = ("least_sm", "mark", "source", "scope", "cpu", "cpu_source")
        table = known_keys(where, raw, keys)
        missing = [key for key in keys if key not in table]
        if missing:
            raise UsageError(f"{where} lacks {', '.join(missing)}")
        if table["cpu"] not in CPU_STATES:
            raise UsageError(f"{where}: unknown cpu {table['cpu']!r}", fix=closest(str(table["cpu"]), CPU_STATES))
        least = Figure(float(table["least_sm"]), table["mark"], table["source"])
        found[name] = Precision(name, least, table["scope"], table["cpu"], table["cpu_source"])
    return found
