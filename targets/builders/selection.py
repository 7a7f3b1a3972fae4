"""Which variant of each graph becomes an engine, and what its recipe asks of every projection."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle, Variant
from motedge.errors import BundleError, UsageError, closest
from motedge.quant.recipe import Recipe, builtin_recipes, parse_recipe
from motedge.runtime.backends.registry import choose_variant, require_recipe

# bf16 first: the type that the models were trained in. fp32 runs, slowly, and is never chosen unasked
_DTYPES = ("bf16", "fp16")
# TensorRT support matrix: bf16 tensor cores since Ampere
_BF16_SM = 8.0
UNCHECKED = "layers are not held against the recipe: the package onnx, which reads their names, is not installed"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """One graph in one variant."""

    graph: str
    variant: str
    entry: Variant


def choose(
    bundle: Bundle,
    *,
    dialects: Sequence[str],
    compute_capability: Optional[float],
    max_opset: Optional[int] = None,
    graphs: Optional[Sequence[str]] = None,
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
) -> list[Choice]:
    """The variant of every graph; of one without weights its only one, whatever is asked of the others.

    Args:
        bundle: the bundle.
        dialects: that the builder takes, the preferred one first.
        compute_capability: of the target's GPU; None for a CPU.
        max_opset: the newest that the library documents: a variant beyond it is taken only where there is no other.
        graphs: names; None for all.
        variant: "fused-bf16", or an id with its recipe; None: the best that the bundle has.
        recipe: "fp8"; graphs that it leaves alone are built unquantized. None: unquantized, unless a graph has one
            recipe only.

    Raises:
        UsageError: an unknown graph or recipe, or several recipes to choose from.
        BundleError: a graph has no variant that fits; says what there is.
    """
    require_recipe(bundle, recipe)
    chosen = []
    for graph in bundle.manifest.graphs if graphs is None else graphs:
        if graph not in bundle.manifest.graphs:
            raise UsageError(f"the bundle has no graph {graph!r}", fix=closest(graph, bundle.manifest.graphs))
        if graph in WEIGHTLESS_GRAPHS:
            name = choose_variant(bundle, graph)
        else:
            fitting = of_recipe(graph, bundle.graph(graph).variants, recipe)
            # Sorting keeps the order otherwise
            known = sorted(fitting, key=lambda name: max_opset is not None and fitting[name].opset > max_opset)
            ordered = {name: fitting[name] for name in known}
            name = _best(graph, bundle.graph(graph).variants, ordered, dialects, compute_capability, variant)
        chosen.append(Choice(graph, name, bundle.variant(graph, name)))
    return chosen


def _best(
    graph: str,
    variants: Mapping[str, Variant],
    fitting: Mapping[str, Variant],
    dialects: Sequence[str],
    capability: Optional[float],
    variant: Optional[str],
) -> str:
    if variant is not None:
        named = [variant] if variant in fitting else []
        named += [name for name, entry in fitting.items() if variant == f"{entry.dialect}-{entry.dtype}"]
        if not named:
            raise UsageError(f"graph {graph!r} has no variant {variant!r}", fix=closest(variant, variants))
        _require_dialect(graph, named[0], fitting[named[0]], dialects)
        return named[0]
    for dialect in dialects:
        for dtype in _DTYPES:
            if dtype == "bf16" and (capability or _BF16_SM) < _BF16_SM:
                continue
            for name, entry in fitting.items():
                if (entry.dialect, entry.dtype) == (dialect, dtype):
                    return name
    raise BundleError(
        f"the bundle has no variant of graph {graph!r} that can be built here",
        expected=" or ".join(f"{dialect}-{dtype}" for dialect in dialects for dtype in _DTYPES),
        got=", ".join(variants) or "no variants",
        fix=f"motedge export CHECKPOINT --out BUNDLE --variants {dialects[0]}-fp16, and motedge quantize for a recipe",
    )


def of_recipe(graph: str, variants: Mapping[str, Variant], recipe: Optional[str]) -> dict[str, Variant]:
    """The variants of a recipe, or the unquantized ones of a graph that it leaves alone.

    Raises:
        UsageError: no recipe was named, and the graph has several and no unquantized variant.
    """
    plain = {name: entry for name, entry in variants.items() if entry.recipe is None}
    if recipe is not None:
        return {name: entry for name, entry in variants.items() if entry.recipe == recipe} or plain
    known = sorted({str(entry.recipe) for entry in variants.values() if entry.recipe})
    if not plain and len(known) > 1:
        raise UsageError(
            f"graph {graph!r} is quantized in several ways", expected="a recipe", got=", ".join(known), fix="--recipe"
        )
    return plain or dict(variants)


def _require_dialect(graph: str, name: str, entry: Variant, dialects: Sequence[str]) -> None:
    if entry.dialect not in dialects:
        raise UsageError(
            f"variant {name!r} of graph {graph!r} can't be built here",
            expected=f"the dialect {' or '.join(dialects)}",
            got=entry.dialect,
            why="this version of the engine library lacks the fused operators" if entry.dialect == "fused" else None,
            fix="leave --variant out to take the best that fits",
        )


def recipe_of(bundle: Bundle, entry: Variant) -> Optional[Recipe]:
    """The recipe of a variant, as the bundle keeps it, or the built-in one of that id; None for an unquantized one."""
    if entry.recipe is None:
        return None
    kept = f"calibration/{entry.recipe}/recipe.toml"
    path = bundle.path(kept)
    if path.is_file():
        return parse_recipe(path.read_text(encoding="utf-8"), kept)
    return builtin_recipes().get(entry.recipe)


def asked_types(bundle: Bundle, choice: Choice) -> dict[str, tuple[str, str]]:
    """Projection -> types of its activations and of its weight, as the recipe wants them; {} for unquantized graphs.

    Without the package onnx, which reads the projections' names and which a device need not have: a warning, and {}.
    """
    recipe = recipe_of(bundle, choice.entry)
    if recipe is None:
        return {}
    try:
        import onnx
    except ImportError:
        _log.warning("%s: %s", choice.graph, UNCHECKED)
        return {}
    model = onnx.load(str(bundle.path(choice.entry.file)), load_external_data=False)
    suffix = "/MatMul"
    names = [n.name[: -len(suffix)] for n in model.graph.node if n.op_type == "MatMul" and n.name.endswith(suffix)]
    schemes = recipe.resolve(choice.graph, [name for name in names if name.startswith("layers.")])
    dtype = choice.entry.dtype
    return {name: (scheme.activation or dtype, scheme.weight) for name, scheme in schemes.items()}
