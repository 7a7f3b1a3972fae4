"""From a scheme for each site to few rules: globs where layers or projections agree, a rule a site for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from motedge.quant.sensitivity.space import NONE

# (glob over site names, scheme); the first match decides
Rules = list[tuple[str, str]]


def compact_rules(schemes: Mapping[str, str]) -> tuple[str, Rules]:
    """The shortest of a few ways of writing an assignment.

    Args:
        schemes: scheme or "none" of every site of a graph, by its name "layers.<number>.<projection>".

    Returns:
        The default scheme, and rules in their order.
    """
    default = max(sorted({*schemes.values()}), key=lambda scheme: _count(schemes)[scheme])
    ways = [_grouped(schemes, default, key) for key in (_by_projection, _by_layer, _by_block)]
    return default, min(ways, key=len)


def _grouped(schemes: Mapping[str, str], default: str, group: Callable[[str], str]) -> Rules:
    """A rule for each group whose majority is not the default, exceptions before it."""
    members: dict[str, dict[str, str]] = {}
    for name, scheme in schemes.items():
        members.setdefault(group(name), {})[name] = scheme
    exceptions: Rules = []
    general: Rules = []
    for pattern, sites in members.items():
        most = max(sorted({*sites.values()}), key=lambda scheme: (_count(sites)[scheme], scheme == default))
        exceptions += [(name, scheme) for name, scheme in sites.items() if scheme != most]
        if most != default:
            general.append((pattern, most))
    return exceptions + general


def _by_projection(name: str) -> str:
    _, _, projection = name.split(".", 2)
    return f"layers.*.{projection}"


def _by_layer(name: str) -> str:
    return f"layers.{name.split('.')[1]}.*"


def _by_block(name: str) -> str:
    """Attention or feed-forward of one layer."""
    return f"{name.rpartition('.')[0]}.*"


def _count(schemes: Mapping[str, str]) -> Counter[str]:
    return Counter(schemes.values())


def all_schemes(sites: list[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Scheme or "none" of every site."""
    return {name: chosen.get(name, NONE) for name in sites}
