"""Who drives the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from examples.train_small.closed_loop.rows import EXPERT, STRAIGHT, Row
from examples.train_small.drive.drivers import SHIFT, STEPS, BundleDriver, Driver, ExpertDriver, StraightAhead
from motedge.errors import UsageError, closest
from motedge.runtime.generate.generator import Generator
from motedge.runtime.generate.loader import load_generator


@dataclass(frozen=True)
class BundleSpec:
    """Which graphs of which bundle."""

    path: Path
    # As `load_generator`
    recipe: Optional[str] = None
    variant: Optional[str] = None


class Drivers:
    """One driver for each row; rows of one bundle share its engines."""

    def __init__(self, bundles: Mapping[str, BundleSpec], threads: int = 1) -> None:
        """Opens nothing yet."""
        self.bundles, self._threads = bundles, threads
        self._open: dict[str, Generator] = {}

    def of(self, row: Row) -> Driver:
        """The row's driver.

        Raises:
            UsageError: an unknown bundle.
            BundleError: as `load_generator`.
        """
        if row.driver == EXPERT:
            return ExpertDriver()
        if row.driver == STRAIGHT:
            return StraightAhead()
        if row.driver not in self.bundles:
            raise UsageError(f"nobody drives as {row.driver!r}", fix=closest(row.driver, tuple(self.bundles)))
        if row.driver not in self._open:
            spec = self.bundles[row.driver]
            self._open[row.driver] = load_generator(
                spec.path, recipe=spec.recipe, variant=spec.variant, threads=self._threads, check="size"
            )
        return BundleDriver(self._open[row.driver], {"steps": STEPS, "shift": SHIFT, **row.sampler})

    def close(self) -> None:
        """Frees the engines."""
        for generator in self._open.values():
            generator.close()
