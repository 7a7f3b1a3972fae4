"""What the search may choose from: the sites of both towers, and the schemes that the named recipes give each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from motedge.bundle import Bundle
from motedge.errors import UsageError
from motedge.quant.schemes import SCHEMES, Scheme
from motedge.quant.sensitivity.tasks import Assignment
from motedge.quant.sites import Site
from motedge.quant.source import BundleWeights

if TYPE_CHECKING:
    from motedge.quant.recipe import Recipe

GRAPHS = ("und_prefill", "gen_step")
NONE = "none"
# Bits of a weight that stays as it is: the sixteen-bit graphs are what a device runs
PLAIN_BITS = 16.0


@dataclass(frozen=True)
class Choice:
    """One site and the schemes that it may get, "none" apart."""

    graph: str
    site: Site
    schemes: tuple[str, ...]

    def bytes_as(self, scheme: str) -> float:
        """Bytes of its weight under a scheme or "none", block scales included."""
        bits = PLAIN_BITS if scheme == NONE else SCHEMES[scheme].weight_bits
        return self.site.parameters * bits / 8


@dataclass(frozen=True)
class Space:
    """All choices, in the order of the towers, and the recipes as assignments."""

    choices: tuple[Choice, ...]
    # Recipe id -> graph -> site -> scheme id
    uniform: Mapping[str, Assignment]
    # Schemes that a site can't have, in words
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """Values of all sites' weights."""
        return sum(choice.site.parameters for choice in self.choices)

    def bytes_of(self, assignment: Assignment) -> float:
        """Bytes of all sites' weights under an assignment."""
        return sum(
            choice.bytes_as(assignment.get(choice.graph, {}).get(choice.site.name, NONE)) for choice in self.choices
        )

    @property
    def least_bytes(self) -> float:
        """Bytes with each site under its smallest scheme."""
        return sum(min(choice.bytes_as(scheme) for scheme in (NONE, *choice.schemes)) for choice in self.choices)

    def check_bytes(self, limit: float, least: float) -> None:
        """Raises UsageError for a bound below `least`, the bytes of the smallest mixture; says how large it is."""
        if limit >= least:
            return
        least = math.ceil(least)
        raise UsageError(
            "no mixture of these recipes is that small",
            expected=f"at least {least} bytes, {8 * least / self.weights:.3f} bits a weight",
            got=f"{int(limit)} bytes, {8 * limit / self.weights:.3f} bits a weight",
            fix="allow more, or name a recipe with fewer bits",
        )

    def schemes(self) -> dict[str, dict[str, list[Scheme]]]:
        """Graph -> site -> the schemes that it may get."""
        found: dict[str, dict[str, list[Scheme]]] = {}
        for choice in self.choices:
            found.setdefault(choice.graph, {})[choice.site.name] = [SCHEMES[name] for name in choice.schemes]
        return found


def open_space(bundle: Bundle, recipes: Sequence[Recipe]) -> Space:
    """Reads headers only.

    Raises:
        BundleError: the bundle is quantized already.
        UsageError: no recipe, one twice, or none that quantizes a projection of the towers.
    """
    ids = [recipe.id for recipe in recipes]
    if not recipes or len(set(ids)) != len(ids):
        raise UsageError("the recipes to choose from are wrong", expected="one or more, each once", got=", ".join(ids))
    uniform: dict[str, dict[str, dict[str, str]]] = {recipe.id: {} for recipe in recipes}
    choices, notes = [], []
    for graph in GRAPHS:
        sites = {site.name: site for site in BundleWeights.open(bundle, graph).sites()}
        found: dict[str, list[str]] = {name: [] for name in sites}
        for recipe in recipes:
            chosen = uniform[recipe.id].setdefault(graph, {})
            if graph not in recipe.graphs:
                continue
            for name, scheme in recipe.resolve(graph, list(sites)).items():
                if scheme.block is not None and sites[name].inputs % scheme.block:
                    notes.append(
                        f"{graph} {name}: {scheme.id} needs a multiple of {scheme.block} inputs and it has "
                        f"{sites[name].inputs}; recipe {recipe.id} is measured with it unquantized"
                    )
                    continue
                chosen[name] = scheme.id
                if scheme.id not in found[name]:
                    found[name].append(scheme.id)
        choices += [Choice(graph, site, tuple(found[name])) for name, site in sites.items()]
    if not any(choice.schemes for choice in choices):
        raise UsageError("the recipes quantize nothing in this bundle", got=", ".join(ids))
    return Space(tuple(choices), uniform, tuple(notes))
