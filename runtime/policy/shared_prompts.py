"""Prompts read by a reasoner's graph und: which variant of it that is, and what und_prefill would have been."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from motedge.bundle import Bundle, Variant
from motedge.errors import BundleError, UsageError
from motedge.runtime.backends import choose_variant
from motedge.runtime.engine import Engine
from motedge.runtime.engine_files.record import BUILD_FILE, EngineFiles

if TYPE_CHECKING:
    from motedge.runtime.reasoner.bundle_reasoner import BundleReasoner

LOG = logging.getLogger(__name__)
UND, PREFILL = "und", "und_prefill"


def check_reasoner(bundle: Bundle, reasoner: BundleReasoner, choice: Mapping[str, Any]) -> None:
    """Before a generator takes K and V from a reasoner's tower; see `check_shared`.

    Raises:
        UsageError: the reasoner is another bundle's, or in another variant or recipe than asked for.
        BundleError: as `choose_variant`.
    """
    if reasoner.root.resolve() != bundle.root.resolve():
        expected, got = str(bundle.root), str(reasoner.root)
        raise UsageError("reasoner and generator are of different bundles", expected=expected, got=got)
    check_shared(bundle, reasoner.und_engine, choice)


def check_shared(bundle: Bundle, und: Engine, choice: Mapping[str, Any]) -> None:
    """Before a generator takes K and V from `und`; warns where und_prefill would have computed otherwise.

    Args:
        bundle: of both.
        und: the reasoner's engine.
        choice: the generator's "backend", "variant" and "recipe"; the last two may be None.

    Raises:
        UsageError: a variant or recipe was asked for, and the reasoner was opened in another.
        BundleError: as `choose_variant`.
    """
    asked = {name: choice[name] for name in ("backend", "variant", "recipe")}
    found = find_variant(bundle, und)
    if found is None:
        LOG.warning("prompts are read by the reasoner's graph und, of which it is not known what variant it is")
        return
    if found not in bundle.graph(UND).variants:
        # A packed bundle holds engines alone: what they were built from is not here to be compared
        return
    if asked["variant"] is not None or asked["recipe"] is not None:
        expected = choose_variant(bundle, UND, **asked)
        if found != expected:
            raise UsageError(
                "the reasoner, which is to read the prompts, was opened in another variant",
                expected=f"graph und in {expected}",
                got=found,
                fix="open both with the same variant and recipe, or the generator without the reasoner",
            )
    try:
        replaced = choose_variant(bundle, PREFILL, **asked)
    except BundleError:
        # It need not be there: not built for this GPU, say
        return
    entries = bundle.variant(UND, found), bundle.variant(PREFILL, replaced)
    types = [_types(entry) for entry in entries]
    if types[0] != types[1]:
        LOG.warning(
            "prompts are read by the reasoner's graph und in %s (%s), not by und_prefill in %s (%s): actions differ by"
            " more than rounding",
            found,
            ", ".join(types[0]),
            replaced,
            ", ".join(types[1]),
        )


def prompts_read_by(bundle: Bundle, und: Engine) -> str:
    """For a chunk's details: the graph, and its variant where it is known."""
    return " ".join(filter(None, (UND, find_variant(bundle, und))))


def find_variant(bundle: Bundle, und: Engine) -> Optional[str]:
    """The variant that an engine of und was loaded from; None where the engine doesn't tell its file."""
    model: Optional[Path] = getattr(und, "model", None)
    if model is None:
        return None
    variants = bundle.graph(UND).variants.items()
    found = next((name for name, entry in variants if model == bundle.path(entry.file)), None)
    if found is None and (model.parent / BUILD_FILE).is_file():
        engines = EngineFiles.read(model.parent).engines
        found = next((engine.variant for engine in engines if engine.file == model.name), None)
    return found


def _types(entry: Variant) -> tuple[str, ...]:
    """The graph's type, and the schemes of its projections."""
    schemes = entry.facts.get("sites") or ([] if entry.recipe is None else [f"recipe {entry.recipe}"])
    return (entry.dtype, *sorted(schemes))
