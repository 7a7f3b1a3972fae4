"""Which variant of every graph a plan is made of, and whether it is legal on the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from motedge.bundle import Bundle, Variant
from motedge.quant.recipe import Recipe, load_recipe
from motedge.runtime.backends.registry import choose_variant
from motedge.targets.builders.selection import choose
from motedge.targets.catalog import Target
from motedge.targets.legality import EngineLibrary


@dataclass(frozen=True)
class PlannedGraph:
    """One graph and what it is planned from."""

    graph: str
    variant: str
    entry: Variant
    # Recipe that the bundle does not hold, to be applied in sizes; None: the variant is taken as it is
    applied: Optional[Recipe]


def held_recipes(bundle: Bundle) -> list[str]:
    """Recipes that the bundle has quantized graphs of."""
    variants = (v for graph in bundle.manifest.graphs.values() for v in graph.variants.values())
    return sorted({variant.recipe for variant in variants if variant.recipe is not None})


def choose_graphs(
    bundle: Bundle, target: Target, library: EngineLibrary, recipe: Optional[str], variant: Optional[str]
) -> list[PlannedGraph]:
    """The variants that `motedge build` would take; for a recipe that the bundle lacks, those it would be made from.

    Args:
        bundle: the bundle.
        target: the device.
        library: decides the dialects.
        recipe: id of a recipe of the bundle or a built-in one, or a .toml file; None: unquantized.
        variant: "fused-fp16"; None: the best that the library takes.

    Raises:
        UsageError: an unknown recipe or variant, or one whose dialect the library lacks.
        BundleError: a graph has no variant that fits; says how to export one.
    """
    if recipe is None or recipe in held_recipes(bundle):
        return [PlannedGraph(*found, None) for found in _choices(bundle, target, library, recipe, variant)]
    loaded = load_recipe(recipe)
    planned = []
    for graph, name, entry in _choices(bundle, target, library, None, variant):
        planned.append(PlannedGraph(graph, name, entry, loaded if graph in loaded.graphs else None))
    return planned


def _choices(
    bundle: Bundle, target: Target, library: EngineLibrary, recipe: Optional[str], variant: Optional[str]
) -> list[tuple[str, str, Variant]]:
    if library.row is None:
        names = {g: choose_variant(bundle, g, variant=variant, recipe=recipe) for g in bundle.manifest.graphs}
        return [(graph, name, bundle.variant(graph, name)) for graph, name in names.items()]
    found = choose(
        bundle,
        dialects=library.dialects,
        compute_capability=target.compute_capability,
        variant=variant,
        recipe=recipe,
    )
    return [(choice.graph, choice.variant, choice.entry) for choice in found]
