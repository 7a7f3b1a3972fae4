"""Where a search's observations come from: a data set, split as calibration splits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from motedge.errors import UsageError
from motedge.files import PathLike
from motedge.quant.calibration.job import calibrate
from motedge.quant.calibration.options import CalibrationOptions, Needs
from motedge.quant.datasets.dataset import Dataset, Moment
from motedge.quant.datasets.open import open_dataset
from motedge.quant.sensitivity.job import Evidence, SearchPlan
from motedge.quant.sensitivity.space import Space

# Folder of the calibration inside the results folder
CALIBRATION = "calibration"


@dataclass(frozen=True)
class ObservationSource:
    """A data set, and how many of its moments to take."""

    dataset: Dataset
    # To calibrate and to measure costs on; to compare mixtures on
    observations: int
    held_out: int

    @classmethod
    def open(cls, path: PathLike, instruction: str | None, observations: int, held_out: int) -> ObservationSource:
        """Opens a data set.

        Raises:
            DataError: an empty or damaged data set.
            UsageError: no observation to compare on.
        """
        if held_out < 1:
            raise UsageError("mixtures are compared on held-out observations", expected="at least 1", got=held_out)
        if observations < 1:
            raise UsageError("costs are measured on observations", expected="at least 1", got=observations)
        return cls(open_dataset(path, instruction=instruction), observations, held_out)

    def identity(self) -> dict[str, Any]:
        """What determines the observations."""
        return {
            "dataset": self.dataset.name,
            "kind": self.dataset.kind,
            "data": self.dataset.fingerprint(),
            "observations": self.observations,
            "held_out": self.held_out,
        }

    def evidence(self, plan: SearchPlan) -> Evidence:
        """Calibrates for every scheme that the search may choose, and reads the observations."""
        options = CalibrationOptions(
            observations=self.observations,
            held_out=self.held_out,
            seed=plan.options.seed,
            compute=plan.options.compute,
            device=plan.options.device,
        )
        found = calibrate(plan.bundle, self.dataset, needs_of_space(plan.space), plan.out / CALIBRATION, options)
        seen = [self.dataset.observation(Moment(*moment)) for moment in found.data.calibration]
        held_out = [self.dataset.observation(Moment(*moment)) for moment in found.data.held_out]
        return Evidence(found, seen, held_out)


def needs_of_space(space: Space) -> Needs:
    """Ranges of every site that some recipe quantizes; AWQ's search where one asks for it."""
    schemes = space.schemes()
    return Needs(
        {graph: frozenset(site for site, known in sites.items() if known) for graph, sites in schemes.items()},
        {
            graph: frozenset(site for site, known in sites.items() if any(s.smoothing == "awq" for s in known))
            for graph, sites in schemes.items()
        },
    )
