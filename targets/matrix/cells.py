"""What is known of one recipe's graph on one device: measured, builds, planned, or impossible, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from motedge.errors import InternalError
from motedge.export.variants import VARIANTS
from motedge.quant.recipe import NONE, Recipe, builtin_recipes
from motedge.quant.schemes import Scheme, find_scheme, quantized_opset
from motedge.targets.catalog import Target
from motedge.targets.legality import Candidate, EngineLibrary, Legality, engine_libraries, judge
from motedge.targets.matrix.evidence import BUILDS, MEASURED, Evidence

PLANNED, IMPOSSIBLE = "planned", "impossible"
# Best first
STATES = (MEASURED, BUILDS, PLANNED, IMPOSSIBLE)
# What a policy needs; recipes change the first two
GRAPHS = ("gen_step", "und_prefill", "vae_encoder")
UNQUANTIZED = "none"
# What is said of one variant with one library of the device
_Judged = tuple[EngineLibrary, Legality]


@dataclass(frozen=True)
class Cell:
    """One combination."""

    target: str
    # Id of a recipe, or "none" for the graph as exported
    recipe: str
    graph: str
    # One of STATES
    state: str
    # A sentence; "" where the state says all
    reason: str


def cells(known: Sequence[Target], proofs: Sequence[Evidence]) -> list[Cell]:
    """Every device, recipe and graph.

    Raises:
        InternalError: something impossible is said to have been done: the rule or the evidence is wrong.
    """
    recipes: list[Optional[Recipe]] = [None, *builtin_recipes().values()]
    return [_cell(target, recipe, graph, proofs) for target in known for recipe in recipes for graph in GRAPHS]


def _cell(target: Target, recipe: Optional[Recipe], graph: str, proofs: Sequence[Evidence]) -> Cell:
    name = UNQUANTIZED if recipe is None else recipe.id
    schemes = [] if recipe is None else _schemes(recipe, graph)
    # A graph that the recipe leaves alone is the exported one
    proven = name if schemes else UNQUANTIZED
    judged = _judge(target, schemes)
    refused = _refusal(target, judged)
    found = [proof for proof in proofs if proof.covers(target, proven, graph)]
    if refused is not None:
        if found:
            raise InternalError(f"{graph} in {name} on {target.id} can't be ({refused}), but {found[0].by} shows it")
        return Cell(target.id, name, graph, IMPOSSIBLE, refused)
    for state in (MEASURED, BUILDS):
        best = next((proof for proof in found if proof.state == state), None)
        if best is not None:
            figure = f"{best.figure}: " if best.figure is not None else ""
            return Cell(target.id, name, graph, state, f"{figure}{best.what} (`{best.by}`)")
    return Cell(target.id, name, graph, PLANNED, _condition(target, judged))


def _schemes(recipe: Recipe, graph: str) -> list[Scheme]:
    """What the recipe may give to projections of this graph."""
    rules = recipe.graphs.get(graph)
    if rules is None:
        return []
    names = dict.fromkeys((rules.default, *(rule.scheme for rule in rules.rules)))
    return [find_scheme(name) for name in names if name != NONE]


def _refusal(target: Target, judged: Sequence[_Judged]) -> Optional[str]:
    """Why nothing builds it, as the newest library says of the variant that comes closest; None where one is legal."""
    if any(legality.legal for _, legality in judged):
        return None
    if not judged:
        return f"no release of {target.id} brings an engine library that is built for"
    newest = [legality for library, legality in judged if library == judged[-1][0]]
    closest = min(newest, key=lambda legality: len(legality.reasons))
    return "; ".join(f"{reason.what} ({reason.source})" for reason in closest.reasons)


def _condition(target: Target, judged: Sequence[_Judged]) -> str:
    """What else must hold: the release from which on it is legal, and what is doubted of the best variant there."""
    first = next(library for library, legality in judged if legality.legal)
    best = min(
        (legality for library, legality in judged if library == first and legality.legal),
        key=lambda legality: len(legality.cautions),
    )
    conditions = []
    if first.release != target.software[0].release:
        conditions.append(f"from {first.release} on")
    return "; ".join((*conditions, *(caution.what for caution in best.cautions)))


def _judge(target: Target, schemes: Sequence[Scheme]) -> list[_Judged]:
    """Every engine library of the device with every variant that export writes, oldest library first."""
    found = []
    for library in engine_libraries(target):
        for spec in VARIANTS.values():
            opset = quantized_opset(spec.opset, spec.dialect, spec.dtype, schemes)
            candidate = Candidate(spec.dialect, spec.dtype, opset, tuple(schemes))
            found.append((library, judge(target, library, candidate)))
    return found
