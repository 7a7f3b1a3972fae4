"""Which variant of every graph a plan is made of, and whether it is legal on the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from motedge.bundle import Bundle, Variant
from motedge.errors import BundleError
from motedge.export.variants import OPSETS, VARIANTS
from motedge.quant.recipe import Recipe, load_recipe
from motedge.runtime.backends.registry import choose_variant
from motedge.runtime.backends.tensorrt.versions import FUSED, PRIMITIVE
from motedge.targets.builders.selection import choose
from motedge.targets.catalog import Target
from motedge.targets.legality import EngineLibrary, engine_libraries


@dataclass(frozen=True)
class PlannedGraph:
    """One graph and what it is planned from."""

    graph: str
    variant: str
    entry: Variant
    # Recipe that the bundle does not hold, to be applied in sizes; None: the variant is taken as it is
    applied: Optional[Recipe]
    # Dialect that the library needs and the bundle lacks: it would be exported with the same weights. None: it is here
    lacking: Optional[str] = None

    @property
    def dialect(self) -> str:
        """Of the graph that is built."""
        return self.entry.dialect if self.lacking is None else self.lacking

    @property
    def opset(self) -> int:
        """Of the graph that is built, recipe aside."""
        return self.entry.opset if self.lacking is None else OPSETS[self.lacking]


def held_recipes(bundle: Bundle) -> list[str]:
    """Recipes that the bundle has quantized graphs of."""
    variants = (v for graph in bundle.manifest.graphs.values() for v in graph.variants.values())
    return sorted({variant.recipe for variant in variants if variant.recipe is not None})


def choose_graphs(
    bundle: Bundle,
    target: Target,
    library: EngineLibrary,
    recipe: Optional[str],
    variant: Optional[str],
    graphs: Optional[Sequence[str]] = None,
) -> list[PlannedGraph]:
    """The variants that `motedge build` would take; for a recipe that the bundle lacks, those it would be made from.

    Args:
        bundle: the bundle.
        target: the device.
        library: decides the dialects.
        recipe: id of a recipe of the bundle or a built-in one, or a .toml file; None: unquantized.
        variant: "fused-fp16"; None: the best that the library takes.
        graphs: names; None: all that the bundle has.

    Raises:
        UsageError: an unknown recipe or variant, or one whose dialect the library lacks.
        BundleError: a graph has no variant that fits, nor one of its size; says how to export one.
    """
    held = recipe is None or recipe in held_recipes(bundle)
    loaded = None if held or recipe is None else load_recipe(recipe)
    basis = recipe if held else None
    lacking = None
    try:
        found = _choices(bundle, target, library, library.dialects, basis, variant, graphs)
    except BundleError:
        if library.row is None or variant is not None:
            raise
        # Dialects write the same weights, so that another one's sizes tell what the missing one's will be
        found, lacking = (
            _choices(bundle, target, library, (FUSED, PRIMITIVE), basis, variant, graphs),
            library.dialects[0],
        )
    return [
        PlannedGraph(
            graph,
            name,
            entry,
            loaded if loaded is not None and graph in loaded.graphs else None,
            lacking if entry.dialect not in library.dialects else None,
        )
        for graph, name, entry in found
    ]


def lacking_releases(
    planned: Sequence[PlannedGraph], bundle: Bundle, target: Target, library: EngineLibrary
) -> list[str]:
    """For the target's other releases that take none of the bundle's graphs of this recipe: what to export for them."""
    missing: dict[str, list[str]] = {}
    for other in engine_libraries(target):
        if other.row is None or other.version == library.version:
            continue
        for graph in planned:
            held = (
                entry for entry in bundle.graph(graph.graph).variants.values() if entry.recipe == graph.entry.recipe
            )
            if not any(entry.dialect in other.dialects for entry in held):
                release = f"{other.release} (TensorRT {other.version})"
                missing.setdefault(exported_variant(other.dialects[0], graph.entry.dtype), []).append(release)
    return [
        f"for {', '.join(dict.fromkeys(releases))} the bundle lacks {variant}: {export_command(variant)}"
        for variant, releases in missing.items()
    ]


def exported_variant(dialect: str, dtype: str) -> str:
    """The variant of a dialect that export writes: not every dialect comes in every type."""
    same = f"{dialect}-{dtype}"
    return same if same in VARIANTS else f"{dialect}-fp16"


def export_command(variant: str) -> str:
    """What brings a variant that a bundle lacks."""
    return f"motedge export CHECKPOINT --out BUNDLE --variants {variant}"


def _choices(
    bundle: Bundle,
    target: Target,
    library: EngineLibrary,
    dialects: Sequence[str],
    recipe: Optional[str],
    variant: Optional[str],
    graphs: Optional[Sequence[str]],
) -> list[tuple[str, str, Variant]]:
    if library.row is None:
        wanted = tuple(bundle.manifest.graphs) if graphs is None else graphs
        names = {graph: choose_variant(bundle, graph, variant=variant, recipe=recipe) for graph in wanted}
        return [(graph, name, bundle.variant(graph, name)) for graph, name in names.items()]
    found = choose(
        bundle,
        dialects=dialects,
        max_opset=library.row.max_opset,
        compute_capability=target.compute_capability,
        graphs=graphs,
        variant=variant,
        recipe=recipe,
    )
    return [(choice.graph, choice.variant, choice.entry) for choice in found]
