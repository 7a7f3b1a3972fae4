"""What is looked at before a build is started: the recipe, memory and disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from motedge.bundle import Bundle
from motedge.errors import HostError
from motedge.files import require_free
from motedge.targets.builders.expected import ExpectedBuild
from motedge.targets.builders.selection import Choice, recipe_of
from motedge.targets.catalog import Target
from motedge.units import format_bytes


def check_recipes(bundle: Bundle, choices: Sequence[Choice], target: Target) -> None:
    """Raises UsageError for a recipe that the target has no number format for."""
    for choice in choices:
        recipe = recipe_of(bundle, choice.entry)
        if recipe is not None:
            recipe.check_target(target)


def check_disk(bundle: Bundle, engines: Sequence[ExpectedBuild]) -> None:
    """HostError unless the bundle's disk takes all engines that are to be built."""
    require_free(bundle.root, sum(engine.engine_bytes for engine in engines), "the engines")


def check_memory(choice: Choice, expected: ExpectedBuild, available: Optional[int]) -> None:
    """HostError where a build can't fit this machine's memory now; graphs are built one at a time.

    Args:
        choice: the graph.
        expected: what its build takes.
        available: bytes to be had; None: not known, and nothing is checked.
    """
    if available is not None and expected.peak_bytes > available:
        raise HostError(
            f"too little memory to build graph {choice.graph!r} ({choice.variant})",
            expected=f"{format_bytes(expected.peak_bytes)}, of {format_bytes(expected.weight_bytes)} of weights",
            got=f"{format_bytes(available)} available",
            why="a build that runs out of memory is killed half-way, and other programs with it",
            fix="close other programs, or take a smaller recipe: motedge plan says what fits",
        )
