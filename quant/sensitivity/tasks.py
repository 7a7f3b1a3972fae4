"""The pieces of a search. Each is measured by itself, in any order, by any worker, with the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

# Graph -> site -> scheme id; sites that are left out stay unquantized
Assignment = Mapping[str, Mapping[str, str]]
# What a task finds, by record id: numbers, lists of numbers, or {"impossible": reason}
Records = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class SiteTask:
    """One site by itself, under each of some schemes."""

    graph: str
    site: str
    layer: int
    schemes: tuple[str, ...]

    def ids(self) -> list[str]:
        """Records that it makes."""
        return [site_id(self.graph, self.site, scheme) for scheme in self.schemes]


@dataclass(frozen=True)
class MixtureTask:
    """A whole assignment of schemes to sites, measured jointly."""

    assignment: Assignment

    def ids(self) -> list[str]:
        """Records that it makes."""
        return [mixture_id(self.assignment)]


@dataclass(frozen=True)
class StepTask:
    """The generator quantized at one denoising step alone."""

    # Site -> scheme id, of gen_step
    schemes: Mapping[str, str]
    step: int

    def ids(self) -> list[str]:
        """Records that it makes."""
        return [step_id(self.schemes, self.step)]


Task = Union[SiteTask, MixtureTask, StepTask]


def site_id(graph: str, site: str, scheme: str) -> str:
    """The id of one cost."""
    return f"site {graph} {site} {scheme}"


def mixture_id(assignment: Assignment) -> str:
    """The id of a mixture's measurement: the same assignment has the same id, whatever its order."""
    return f"mixture {_digest(assignment)}"


def step_id(schemes: Mapping[str, str], step: int) -> str:
    """The id of a step's measurement."""
    return f"step {step} {_digest(schemes)}"


def _digest(value: Any) -> str:
    plain = {key: dict(entry) if isinstance(entry, Mapping) else entry for key, entry in value.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:24]
