"""Which candidates have something to run, as far as manifests tell: asked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from motedge.bench.candidate import Candidate
from motedge.bundle import Bundle
from motedge.errors import MotedgeError, UsageError, closest
from motedge.runtime.backends import choose_variant
from motedge.runtime.policy.loader import GRAPHS


def not_runnable(candidates: Sequence[Candidate], engine: str) -> dict[str, MotedgeError]:
    """Candidate's name -> why it can't be opened. Those cells of a bench fail, and the others go on.

    Args:
        candidates: the reference first.
        engine: the backend.

    Raises:
        UsageError: a variant that none of them has, or a reference that can't be opened: there is nothing to judge by.
    """
    found = {one.name: error for one in candidates if (error := _why_not(one, engine)) is not None}
    known = _variants(candidates)
    for variant in dict.fromkeys(one.variant for one in candidates):
        if variant is not None and variant not in known:
            raise UsageError(f"no bundle has variant {variant!r}", fix=closest(variant, known))
    reference = candidates[0]
    if reference.name in found:
        error = found[reference.name]
        raise UsageError(
            f"the reference, {reference.name}, can't be run: {error.what}",
            expected=error.expected,
            got=error.got,
            why=error.why,
            fix=error.fix,
        )
    return found


def _why_not(candidate: Candidate, engine: str) -> Optional[MotedgeError]:
    try:
        bundle = Bundle.open(candidate.bundle)
        for graph in GRAPHS:
            choose_variant(bundle, graph, backend=engine, variant=candidate.variant, recipe=candidate.recipe)
    except MotedgeError as error:
        return error
    return None


def _variants(candidates: Sequence[Candidate]) -> set[str]:
    """Variants of their bundles, with and without recipes, as they may be asked for."""
    manifests = [Bundle.open(root).manifest for root in {one.bundle for one in candidates}]
    graphs = [manifest.graphs[graph] for manifest in manifests for graph in GRAPHS if graph in manifest.graphs]
    entries = [pair for graph in graphs for pair in graph.variants.items()]
    return {name for name, _ in entries} | {f"{entry.dialect}-{entry.dtype}" for _, entry in entries}
