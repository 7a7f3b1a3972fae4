"""What a quantization will do: which sites of which graphs by which scheme, in which variants, at what size.

Only headers are read, nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle
from motedge.errors import BundleError, UsageError, closest
from motedge.export.extras import find_graph
from motedge.export.variants import VARIANTS
from motedge.quant.calibration.options import CALIBRATED
from motedge.quant.recipe import Recipe
from motedge.quant.schemes import SCHEMES, Scheme
from motedge.quant.source import BundleWeights, best_variant, torch_dtype
from motedge.targets.catalog import Target


@dataclass(frozen=True)
class QuantizePlan:
    """The work to be done on one bundle."""

    bundle: Bundle
    recipe: Recipe
    # Graph -> site -> scheme; graphs that stay as they are have no entry
    schemes: Mapping[str, Mapping[str, Scheme]]
    # Unquantized variants that are the basis, by id, in the bundle's order
    variants: tuple[str, ...]

    @property
    def needs_calibration(self) -> bool:
        """Whether any site needs statistics of activations."""
        return any(scheme.needs_calibration for sites in self.schemes.values() for scheme in sites.values())

    @property
    def order(self) -> list[str]:
        """The graphs that are quantized, those whose data others refer to first."""
        return sorted(self.schemes, key=lambda graph: self.lender(graph) is not None)

    def lender(self, graph: str) -> str | None:
        """The quantized graph that has weights in common with this one; None if there is none."""
        shares = find_graph(graph).shares
        return shares.name if shares is not None and shares.name in self.schemes else None

    def bases(self, graph: str) -> list[str]:
        """The unquantized variants of a graph that take part; all of one without weights."""
        if graph in WEIGHTLESS_GRAPHS:
            return list(self.bundle.graph(graph).variants)
        return [name for name in self.variants if name in self.bundle.graph(graph).variants]

    def weight_bytes(self, graph: str, variant: str) -> tuple[int, int]:
        """Bytes of a variant's weights before and (nearly: paddings are left out) after quantizing."""
        weights = BundleWeights(self.bundle, graph, variant)
        schemes = {f"{site}.weight": scheme for site, scheme in self.schemes.get(graph, {}).items()}
        before = after = 0
        for name in weights.names():
            size = weights.bytes(name)
            before += size
            scheme = schemes.get(name)
            count = size // torch_dtype(weights.dtype).itemsize
            after += size if scheme is None else round(count * scheme.weight_bits / 8)
        return before, after


def make_plan(
    bundle: Bundle, recipe: Recipe, *, variants: Sequence[str] | None = None, target: Target | None = None
) -> QuantizePlan:
    """Resolves a recipe on a bundle.

    Args:
        bundle: an unquantized bundle.
        recipe: the recipe.
        variants: ids of the unquantized variants to quantize; None: all that the bundle has.
        target: the device that must be able to run it; None: not asked.

    Raises:
        BundleError: a graph is quantized already.
        UsageError: an unknown variant, a rule that matches nothing, a recipe that quantizes nothing in this bundle or
            that the target can't run, or a scheme with calibration for a graph that calibration does not run.
    """
    if target is not None:
        recipe.check_target(target)
    graphs = {name: entry for name, entry in bundle.manifest.graphs.items() if name not in WEIGHTLESS_GRAPHS}
    for graph in graphs:
        best_variant(bundle, graph)
    # Quantized operators are newer than the opset of a variant for tests
    known = [name for name in VARIANTS if any(name in entry.variants for entry in graphs.values())]
    for name in variants or ():
        if name not in known:
            raise UsageError(f"the bundle has no unquantized variant {name!r}", fix=closest(name, known))
    chosen = tuple(name for name in known if variants is None or name in variants)
    schemes = {}
    for graph in graphs:
        if graph not in recipe.graphs:
            continue
        sites = [site.name for site in BundleWeights.open(bundle, graph).sites()]
        resolved = recipe.resolve(graph, sites)
        _require_calibrated(recipe, graph, resolved)
        if resolved:
            schemes[graph] = resolved
    if not schemes:
        raise UsageError(
            f"recipe {recipe.id!r} quantizes nothing in this bundle",
            expected=f"a scheme for a projection of {', '.join(graphs)}",
            got=", ".join(recipe.graphs) or "no graph",
            fix="give one of the bundle's graphs a default or a rule",
        )
    for graph in graphs:
        missing = [name for name in chosen if name not in graphs[graph].variants]
        if missing:
            raise BundleError(
                f"graph {graph!r} lacks variant {missing[0]}", fix=f"motedge export --variants {','.join(chosen)}"
            )
    return QuantizePlan(bundle, recipe, schemes, chosen)


def _require_calibrated(recipe: Recipe, graph: str, schemes: Mapping[str, Scheme]) -> None:
    for site, scheme in schemes.items():
        if scheme.needs_calibration and graph not in CALIBRATED:
            alone = [known.id for known in SCHEMES.values() if not known.needs_calibration]
            raise UsageError(
                f"recipe {recipe.id!r} can't quantize {graph} by {scheme.id}",
                expected=f"a scheme of weights alone: {', '.join(alone)}",
                got=f"{scheme.id} for {site}",
                why=f"it needs ranges of activations, and calibration runs {' and '.join(CALIBRATED)} only",
                fix=f'give [{graph}] one of those, or "none"',
            )
