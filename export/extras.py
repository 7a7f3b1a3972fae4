"""Graphs beside the policy's, in groups that an export includes by name."""

from __future__ import annotations

from collections.abc import Iterable

from motedge.errors import UsageError, closest
from motedge.export.graphs import GRAPHS, GraphSpec
from motedge.export.reasoner_graphs import REASONER_EXTRAS
from motedge.export.sound_graphs import SOUND_EXTRAS
from motedge.export.vae_graphs import VAE_EXTRAS

# Group -> its graphs, which are of use together only
EXTRAS: dict[str, tuple[GraphSpec, ...]] = {**VAE_EXTRAS, **REASONER_EXTRAS, **SOUND_EXTRAS}


def extra_graphs(groups: Iterable[str]) -> list[GraphSpec]:
    """The graphs of these groups, each once, in the order of EXTRAS; UsageError for an unknown one."""
    wanted = set(groups)
    for name in sorted(wanted - set(EXTRAS)):
        raise UsageError(f"unknown group of graphs {name!r}", fix=closest(name, EXTRAS))
    return [spec for name, specs in EXTRAS.items() if name in wanted for spec in specs]


def find_graph(name: str) -> GraphSpec:
    """A graph by name, of the policy or beside it; UsageError names the closest for an unknown one."""
    known = {**GRAPHS, **{spec.name: spec for spec in extra_graphs(EXTRAS)}}
    if name not in known:
        raise UsageError(f"unknown graph {name!r}", fix=closest(name, known))
    return known[name]
