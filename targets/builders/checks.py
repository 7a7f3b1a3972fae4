"""What is looked at before a build is started: the recipe, memory and disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from motedge.bundle import Bundle
from motedge.errors import HostError, UsageError
from motedge.files import require_free
from motedge.runtime.backends.tensorrt.versions import TensorRtVersion
from motedge.targets.builders.expected import ExpectedBuild
from motedge.targets.builders.selection import Choice, recipe_of
from motedge.targets.catalog import Target
from motedge.units import format_bytes


def check_recipes(
    bundle: Bundle, choices: Sequence[Choice], target: Target, row: Optional[TensorRtVersion] = None
) -> tuple[str, ...]:
    """Whether the target's GPU, and this version of the library, have the number formats of every variant.

    Args:
        bundle: the bundle.
        choices: what is to be built.
        target: for what.
        row: of the library; None where it is no TensorRT.

    Returns:
        What is not refused and was never tried, in words.

    Raises:
        UsageError: a format is missing; says which.
    """
    doubts = []
    for choice in choices:
        recipe = recipe_of(bundle, choice.entry)
        if recipe is not None:
            recipe.check_target(target)
        if row is None:
            continue
        schemes = recipe.schemes() if recipe is not None else []
        formats = {choice.entry.dtype, *(s.weight for s in schemes), *(s.activation for s in schemes if s.activation)}
        missing = sorted(formats - set(row.types))
        if missing:
            raise UsageError(
                f"TensorRT {row.name} has no {', '.join(missing)}, which {choice.variant!r} of {choice.graph!r} needs",
                expected=f"formats among {', '.join(row.types)}",
                why=row.sources.get("types"),
                fix="take another recipe, or a device with a later TensorRT: motedge targets show TARGET",
            )
        if choice.entry.opset > row.max_opset:
            doubts.append(
                f"{choice.graph} {choice.variant} is of opset {choice.entry.opset}; TensorRT {row.name} says that it "
                f"knows up to {row.max_opset}"
            )
    return tuple(doubts)


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
