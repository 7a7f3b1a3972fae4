"""What is looked at before a build is started: the recipe, memory and disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Optional

from motedge.bundle import Bundle
from motedge.errors import HostError
from motedge.files import require_free
from motedge.targets.builders.memory_watch import available_memory
from motedge.targets.builders.selection import Choice, recipe_of
from motedge.targets.catalog import Target
from motedge.units import format_bytes

# Engines hold the weights, kernels and little else. TensorRT-RTX 1.7.1: 2.856 GB from 2.840 GB of weights
_ENGINE_OVERHEAD, _ENGINE_BASE_BYTES = 1.02, 20_000_000
_log = logging.getLogger(__name__)


def check_recipes(bundle: Bundle, choices: Sequence[Choice], target: Target) -> None:
    """Raises UsageError for a recipe that the target has no number format for."""
    for choice in choices:
        recipe = recipe_of(bundle, choice.entry)
        if recipe is not None:
            recipe.check_target(target)


def weight_bytes(bundle: Bundle, choice: Choice) -> int:
    """Bytes of a variant's external data."""
    return sum(bundle.manifest.files[name].bytes for name in choice.entry.weights)


def check_disk(bundle: Bundle, choices: Sequence[Choice]) -> None:
    """HostError unless the bundle's disk takes all engines that are to be built."""
    needed = sum(int(weight_bytes(bundle, choice) * _ENGINE_OVERHEAD) + _ENGINE_BASE_BYTES for choice in choices)
    require_free(bundle.root, needed, "the engines")


def check_memory(
    bundle: Bundle, choice: Choice, planned_peak_bytes: Optional[int], available: Optional[int] = None
) -> None:
    """HostError where a build can't fit this machine's memory now; graphs are built one at a time.

    Args:
        bundle: the bundle.
        choice: the graph.
        planned_peak_bytes: what the plan expects; None: no plan could be made, and one copy of the weights is held
            against the memory instead, which any builder takes at the least.
        available: bytes to be had; None: asked of the system.
    """
    available = available_memory() if available is None else available
    if available is None:
        return
    least = weight_bytes(bundle, choice)
    needed = least if planned_peak_bytes is None else planned_peak_bytes
    if planned_peak_bytes is None:
        _log.warning("%s: no plan of its memory; only its weights are held against what is free", choice.graph)
    if needed > available:
        raise HostError(
            f"too little memory to build graph {choice.graph!r} ({choice.variant})",
            expected=f"{format_bytes(needed)}" + (" for the weights alone" if planned_peak_bytes is None else ""),
            got=f"{format_bytes(available)} available",
            why="a build that runs out of memory is killed half-way, and other programs with it",
            fix="close other programs, or take a smaller recipe: motedge plan says what fits",
        )
