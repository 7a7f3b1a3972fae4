"""The operating points of a bench: as shipped first, then a grid of settings, or those of a ladder."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import UsageError
from motedge.runtime.deadline.ladder import ALWAYS, Ladder
from motedge.runtime.deadline.operating_point import OperatingPoint
from motedge.runtime.request import SamplerSettings
from motedge.runtime.step_cache.options import FixedCache, parse_step_cache

# What is said for no step cache
NONE = "none"
SHIPPED = "shipped"


@dataclass(frozen=True)
class Grid:
    """Settings that are combined each with each; an empty one keeps the bundle's."""

    steps: Sequence[int] = ()
    guidance: Sequence[float] = ()
    # "LO:HI" in timesteps 0 to 1000, or ALWAYS
    intervals: Sequence[str] = ()
    # Rules of `motedge.runtime.step_cache.options`, or NONE
    caches: Sequence[str] = ()

    def __bool__(self) -> bool:
        return any((self.steps, self.guidance, self.intervals, self.caches))


def bench_points(
    settings: SamplerSettings, grid: Grid, ladder: Optional[str] = None
) -> tuple[list[OperatingPoint], list[str]]:
    """The points, SHIPPED first, none twice; and what was left out, in words.

    Args:
        settings: the bundle's own.
        grid: what is asked for.
        ladder: a TOML file of points in place of it; without both, the ladder that deadlines would go down.

    Raises:
        UsageError: both are given, a value out of range, or a file that is no ladder.
    """
    shipped = OperatingPoint(SHIPPED, settings)
    if ladder is not None:
        if grid:
            raise UsageError("a ladder and a grid of settings contradict each other", expected="one of them")
        return _unique([shipped, *Ladder.from_toml(ladder, settings)]), []
    if not grid:
        return _unique([shipped, *Ladder.from_settings(settings)]), []
    points, left_out = [shipped], []
    intervals = [_interval(text) for text in grid.intervals] or [settings.guidance_interval]
    caches = [None if text == NONE else parse_step_cache(text) for text in grid.caches] or [settings.step_cache]
    for steps, guidance in itertools.product(grid.steps or [settings.steps], grid.guidance or [settings.guidance]):
        # Refused by itself, not for a step cache that names more steps
        plain = dataclasses.replace(settings, steps=steps, guidance=guidance, step_cache=None)
        for interval, cache in itertools.product(intervals, caches):
            changed = dataclasses.replace(plain, guidance_interval=interval)
            try:
                chosen = dataclasses.replace(changed, step_cache=cache)
            except UsageError as error:
                left_out.append(f"{_words(changed, bool(grid.intervals))} with {cache}: {error.what}")
                continue
            points.append(OperatingPoint(_words(chosen, bool(grid.intervals)), chosen))
    return _unique(points), left_out


def _unique(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """The first of those that sample alike."""
    found: dict[Any, OperatingPoint] = {}
    for point in points:
        found.setdefault(_way(point.settings), point)
    names = [point.name for point in found.values()]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two operating points are called {name!r}", fix="give each its own name")
    return list(found.values())


def _way(settings: SamplerSettings) -> Any:
    """Equal where each step does the same, whatever the settings say: an interval without guidance says nothing, and a
    rule that leaves out no forward neither."""
    guided = tuple(settings.guidance_plan().active(t) for t in settings.schedule().timesteps.tolist())
    rule: Any = settings.step_cache
    if isinstance(rule, FixedCache):
        rule = tuple(rule.computed(guided))
        rule = None if rule == tuple((True, active) for active in guided) else rule
    scale = settings.guidance if any(guided) else 1.0
    return settings.steps, settings.shift, settings.distilled_sigmas, scale, guided, rule


def _words(settings: SamplerSettings, intervals: bool) -> str:
    """`intervals`: whether they differ among the points, so that each must be told."""
    parts = [f"{settings.steps} step" + ("s" if settings.steps > 1 else "")]
    if settings.guidance == 1:
        parts.append("unguided")
    else:
        interval = settings.guidance_interval
        where = " always" if interval is None else f" in {interval[0]:g}:{interval[1]:g}"
        parts.append(f"guidance {settings.guidance:g}{where if intervals else ''}")
    if settings.step_cache is not None:
        parts.append(str(settings.step_cache))
    return ", ".join(parts)


def _interval(text: str) -> Optional[tuple[float, float]]:
    if text == ALWAYS:
        return None
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError as error:
        expected = f'LO:HI in timesteps 0 to 1000, or "{ALWAYS}"'
        raise UsageError("the guidance interval is wrong", expected=expected, got=repr(text)) from error
