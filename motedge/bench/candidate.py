"""What is held against what: the recipes of the bundles, and the unquantized one among them that all are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from motedge.bundle import Bundle
from motedge.errors import UsageError, closest
from motedge.files import PathLike
from motedge.runtime.policy.loader import GRAPHS

UNQUANTIZED = "unquantized"


@dataclass(frozen=True)
class Candidate:
    """One recipe of one bundle, in one variant."""

    # Unique in a bench
    name: str
    bundle: Path
    # None: unquantized
    recipe: Optional[str]
    # Asked for, such as "primitive-fp32"; None: the engine's first choice
    variant: Optional[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON form; the bundle by its name, for where it lies says nothing about it."""
        return {
            "name": self.name,
            "bundle": self.bundle.resolve().name,
            "recipe": self.recipe,
            "variant": self.variant,
        }


def find_candidates(
    bundles: Sequence[PathLike],
    *,
    recipes: Optional[Sequence[str]] = None,
    variants: Optional[Sequence[str]] = None,
    reference: Optional[PathLike] = None,
) -> list[Candidate]:
    """All candidates, the reference first.

    Args:
        bundles: folders; each gives its unquantized graphs, where they are whole, and its recipes.
        recipes: only these; the reference is always among them. None: all.
        variants: each candidate in each of them; the reference is in the first. None: the engine's first choice.
        reference: the bundle whose unquantized graphs are the reference; None: of the first that has them.

    Raises:
        BundleError: a folder is no bundle.
        UsageError: none is unquantized, an unknown recipe, bundles of different models.
    """
    roots = _unique([*([] if reference is None else [reference]), *bundles])
    opened = {root: Bundle.open(root) for root in roots}
    _require_alike(opened)
    whole = [root for root in roots if _is_whole(opened[root])]
    right = whole[0] if whole else None
    if right is None or (reference is not None and right != Path(reference)):
        asked = roots if reference is None else [Path(reference)]
        raise UsageError(
            "there is no unquantized bundle to judge by",
            expected=f"one with unquantized variants of {', '.join(GRAPHS)}",
            got=", ".join(f"{root} ({', '.join(_recipes(opened[root])) or 'incomplete'})" for root in asked),
            fix="motedge bench UNQUANTIZED QUANTIZED: the bundle that was quantized first",
        )
    known = {recipe for bundle in opened.values() for recipe in _recipes(bundle)}
    for recipe in recipes or ():
        if recipe not in known and recipe != UNQUANTIZED:
            raise UsageError(f"no bundle has recipe {recipe!r}", fix=closest(recipe, known | {UNQUANTIZED}))
    pairs: list[tuple[Path, Optional[str]]] = [(right, None)]
    for root in roots:
        offered: list[Optional[str]] = [None] if root in whole and root != right else []
        offered += _recipes(opened[root])
        pairs += [(root, recipe) for recipe in offered if recipes is None or (recipe or UNQUANTIZED) in recipes]
    return _named([(root, recipe, variant) for root, recipe in pairs for variant in variants or (None,)])


def _named(chosen: Sequence[tuple[Path, Optional[str], Optional[str]]]) -> list[Candidate]:
    """Each with the shortest name that tells it from the others: recipe, then variant, then bundle."""
    variants, names = {variant for *_, variant in chosen}, []
    for root, recipe, variant in chosen:
        name = recipe or UNQUANTIZED
        if variant is not None and (len(variants) > 1 or recipe is None):
            name += f" {variant}"
        names.append((name, root.resolve().name))
    found = []
    for (root, recipe, variant), (name, folder) in zip(chosen, names):
        alike = [other for other, _ in names].count(name) > 1
        found.append(Candidate(f"{name} of {folder}" if alike else name, root, recipe, variant))
    given = [candidate.name for candidate in found]
    for name in given:
        if given.count(name) > 1:
            raise UsageError(f"two bundles are both {name!r}", fix="give one of their folders another name")
    return found


def _unique(paths: Sequence[PathLike]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(Path(path).resolve(), Path(path))
    return list(found.values())


def _recipes(bundle: Bundle) -> list[str]:
    graphs = [bundle.graph(graph) for graph in GRAPHS if graph in bundle.manifest.graphs]
    return sorted({str(v.recipe) for graph in graphs for v in graph.variants.values() if v.recipe is not None})


def _is_whole(bundle: Bundle) -> bool:
    """Whether every graph is there unquantized."""
    return all(
        graph in bundle.manifest.graphs and any(v.recipe is None for v in bundle.graph(graph).variants.values())
        for graph in GRAPHS
    )


def _require_alike(opened: dict[Path, Bundle]) -> None:
    """Of other weights, shapes or robots no action can be held against another's."""
    (first, right), *others = opened.items()
    for root, bundle in others:
        for what, own, expected in (
            ("model", bundle.manifest.model, right.manifest.model),
            ("shape set", bundle.manifest.shape_set, right.manifest.shape_set),
            ("embodiment", bundle.manifest.policy.get("embodiment"), right.manifest.policy.get("embodiment")),
        ):
            if own != expected:
                raise UsageError(
                    f"{root} and {first} are not of the same {what}",
                    why="a difference of their actions would not be that of a recipe",
                    fix="give bundles that were made from one export",
                )
