"""What is known of one recipe's graph on one device: measured, builds, planned, or impossible, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from motedge.errors import HostError, InternalError
from motedge.quant.recipe import NONE, Recipe, builtin_recipes
from motedge.quant.schemes import Scheme, find_scheme
from motedge.targets.catalog import Target, precisions
from motedge.targets.matrix.evidence import BUILDS, MEASURED, Evidence
from motedge.targets.tensorrt.versions import find_version

PLANNED, IMPOSSIBLE = "planned", "impossible"
# Best first
STATES = (MEASURED, BUILDS, PLANNED, IMPOSSIBLE)
# What a policy needs; recipes change the first two
GRAPHS = ("gen_step", "und_prefill", "vae_encoder")
UNQUANTIZED = "none"


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
    refused = _refusal(target, schemes)
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
    return Cell(target.id, name, graph, PLANNED, _condition(target, schemes))


def _schemes(recipe: Recipe, graph: str) -> list[Scheme]:
    """What the recipe may give to projections of this graph."""
    rules = recipe.graphs.get(graph)
    if rules is None:
        return []
    names = dict.fromkeys((rules.default, *(rule.scheme for rule in rules.rules)))
    return [find_scheme(name) for name in names if name != NONE]


def _refusal(target: Target, schemes: Sequence[Scheme]) -> Optional[str]:
    for scheme in schemes:
        precision = precisions()[scheme.weight]
        if not precision.legal(target):
            source = precision.cpu_source if target.compute_capability is None else precision.least_sm.source
            return f"{scheme.weight} needs compute capability {scheme.least_sm} ({source})"
    if target.engine == "tensorrt" and schemes and not _releases(target, schemes):
        types = ", ".join(dict.fromkeys(scheme.weight for scheme in schemes))
        return f"no TensorRT of this device has {types}"
    return None


def _condition(target: Target, schemes: Sequence[Scheme]) -> str:
    """What else must hold: a CPU's emulation, or a release of the software that has the types."""
    if target.engine == "onnxruntime":
        emulated = [s.weight for s in schemes if precisions()[s.weight].cpu == "emulated"]
        return f"{emulated[0]} in an emulation, for accuracy and not for speed" if emulated else ""
    if target.engine != "tensorrt" or not schemes:
        return ""
    fitting = _releases(target, schemes)
    return f"from {fitting[0]} on" if fitting[0] != target.software[0].release else ""


def _releases(target: Target, schemes: Sequence[Scheme]) -> list[str]:
    """Releases of the device's software whose TensorRT has every type, oldest first."""
    found = []
    for row in target.software:
        for version in filter(None, (row.tensorrt, *row.accepts)):
            try:
                types = find_version(version).types
            except HostError:
                continue
            if all(scheme.weight in types for scheme in schemes):
                found.append(row.release)
    return list(dict.fromkeys(found))
