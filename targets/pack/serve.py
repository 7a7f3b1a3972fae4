"""Which variant of each graph goes to a device, and which releases of its system software take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from motedge.bundle import Bundle
from motedge.errors import HostError, MotedgeError, UsageError, closest
from motedge.runtime.backends.registry import choose_variant
from motedge.runtime.backends.tensorrt.versions import RTX, TensorRtVersion, find_version
from motedge.targets.builders.checks import check_recipes
from motedge.targets.builders.selection import Choice, choose
from motedge.targets.catalog import SoftwareRow, Target


@dataclass(frozen=True)
class Wish:
    """What whoever packs asked for; None: whatever fits."""

    # "JetPack 6.2"
    release: Optional[str] = None
    variant: Optional[str] = None
    recipe: Optional[str] = None


@dataclass(frozen=True)
class Served:
    """What an archive will hold, and for which releases that is good."""

    choices: tuple[Choice, ...]
    releases: tuple[SoftwareRow, ...]
    # What is not refused and was never tried, in words
    doubts: tuple[str, ...] = ()


def choose_for(bundle: Bundle, target: Target, wish: Wish) -> Served:
    """The variants for a device.

    Raises:
        UsageError: an unknown release or variant; a recipe that is illegal there; releases of the device that need
            different graphs while the bundle has them all, so that one must be named.
        BundleError: the bundle has no variant that fits; says how to export one.
        HostError: none of the device's releases is supported.
    """
    rows = _rows(target, wish.release)
    if target.engine != "onnxruntime":
        return _for_tensorrt(bundle, target, rows, wish)
    choices = _for_onnxruntime(bundle, wish)
    return Served(choices, tuple(rows), tuple(check_recipes(bundle, choices, target, None)))


def _rows(target: Target, release: Optional[str]) -> list[SoftwareRow]:
    if release is None:
        return list(target.software)
    found = [row for row in target.software if row.release == release]
    if not found:
        known = [row.release for row in target.software]
        raise UsageError(f"{target.id} has no release {release!r}", fix=closest(release, known))
    return found


def _for_onnxruntime(bundle: Bundle, wish: Wish) -> tuple[Choice, ...]:
    names = {
        graph: choose_variant(bundle, graph, variant=wish.variant, recipe=wish.recipe)
        for graph in bundle.manifest.graphs
    }
    return tuple(Choice(graph, name, bundle.variant(graph, name)) for graph, name in names.items())


def _for_tensorrt(bundle: Bundle, target: Target, rows: Sequence[SoftwareRow], wish: Wish) -> Served:
    versions = {row.release: _version(row, target) for row in rows}
    supported = [row for row in rows if versions[row.release] is not None]
    if not supported:
        raise HostError(
            f"no release of {target.id} has a TensorRT that engines are built with",
            got=", ".join(f"{row.release}: {row.tensorrt or 'not known'}" for row in rows) or "no releases",
            fix="motedge targets show " + target.id,
        )
    # By the ids of the variants: choices themselves hold dictionaries
    found: dict[tuple[str, ...], tuple[tuple[Choice, ...], list[SoftwareRow]]] = {}
    failure: Optional[MotedgeError] = None
    for row in supported:
        try:
            choices = _choices(bundle, target, versions[row.release], wish)
        except MotedgeError as error:
            failure = error
            continue
        found.setdefault(tuple(choice.variant for choice in choices), (choices, []))[1].append(row)
    if not found and failure is not None:
        raise failure
    if len(found) > 1:
        raise UsageError(
            f"releases of {target.id} need different graphs, and the bundle has them all",
            expected="the release that the device runs",
            got="; ".join(f"{_names(served)}: {_kinds(choices)}" for choices, served in found.values()),
            fix=f'--release "{supported[-1].release}", or --variant; motedge targets detect on the device says which',
        )
    chosen = next(iter(found.values()))[0]
    takes, doubts = [], {}
    for row in supported:
        version = versions[row.release]
        if version is None or not all(version.takes(choice.entry.dialect) for choice in chosen):
            continue
        try:
            doubts.update(dict.fromkeys(check_recipes(bundle, chosen, target, version)))
        except UsageError:
            # An older release lacks a number format of the recipe
            continue
        takes.append(row)
    return Served(chosen, tuple(takes), tuple(doubts))


def _choices(bundle: Bundle, target: Target, version: Optional[TensorRtVersion], wish: Wish) -> tuple[Choice, ...]:
    choices = choose(
        bundle,
        dialects=version.dialects if version is not None else (),
        max_opset=version.max_opset if version is not None else None,
        compute_capability=target.compute_capability,
        variant=wish.variant,
        recipe=wish.recipe,
    )
    check_recipes(bundle, choices, target, version)
    return tuple(choices)


def _version(row: SoftwareRow, target: Target) -> Optional[TensorRtVersion]:
    """The TensorRT that a release comes with; None where it is not known or nothing is built with it."""
    if target.engine == "tensorrt-rtx":
        return RTX
    try:
        return None if row.tensorrt is None else find_version(row.tensorrt)
    except HostError:
        return None


def _kinds(choices: Sequence[Choice]) -> str:
    return ", ".join(dict.fromkeys(choice.variant for choice in choices))


def _names(rows: Sequence[SoftwareRow]) -> str:
    return ", ".join(row.release for row in rows)
