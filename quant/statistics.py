"""Where the statistics of a quantization come from: a data set, an earlier run, the checkpoint itself, or nowhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from motedge.errors import UsageError
from motedge.files import PathLike
from motedge.quant.calibration.job import CalibrationOptions, calibrate, needs_of
from motedge.quant.calibration.options import CALIBRATED
from motedge.quant.calibration.result import Calibration, parameters_from_scales
from motedge.quant.calibration.store import load_calibration
from motedge.quant.checkpoint_scales import SiteScales, read_checkpoint_scales
from motedge.quant.datasets.dataset import Dataset, Moment
from motedge.quant.datasets.open import open_dataset
from motedge.quant.parameters import SiteParameters
from motedge.quant.plan import QuantizePlan
from motedge.quant.schemes import FP8, Scheme

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StatisticsSource:
    """What the user gave. With none of it, only weight-only schemes without a search can be had."""

    # A data set: LeRobot folder, folder of images and states, recorded requests
    data: Optional[PathLike] = None
    # The instruction, where the data set has none
    instruction: Optional[str] = None
    # Folder of an earlier calibration (calibration/<recipe> of a quantized bundle)
    earlier: Optional[PathLike] = None
    options: CalibrationOptions = field(default_factory=CalibrationOptions)


@dataclass(frozen=True)
class Statistics:
    """What is known about every site that the recipe quantizes."""

    # Graph -> site -> parameters
    parameters: Mapping[str, Mapping[str, SiteParameters]]
    # "calibration", "checkpoint" or "weights alone"
    source: str
    calibration: Optional[Calibration] = None
    # To measure on; None where no data was given
    dataset: Optional[Dataset] = None
    held_out: tuple[Moment, ...] = ()


def find_statistics(plan: QuantizePlan, source: StatisticsSource, work: Path) -> Statistics:
    """Calibrates, or takes what is there.

    Args:
        plan: the sites and their schemes.
        source: what the user gave.
        work: folder that keeps the state of an interrupted calibration.

    Raises:
        UsageError: statistics are needed and nothing was given; an earlier calibration lacks a site.
        DataError: a data set that is empty, too small or damaged.
    """
    if source.data is not None:
        dataset = open_dataset(source.data, instruction=source.instruction)
        calibration = calibrate(plan.bundle, dataset, needs_of(plan.schemes), work, source.options, source.earlier)
        held_out = tuple(Moment(*moment) for moment in calibration.data.held_out)
        return Statistics(_parameters(plan, calibration), "calibration", calibration, dataset, held_out)
    if source.earlier is not None:
        calibration = load_calibration(Path(source.earlier))
        calibration.require_origin(plan.bundle)
        _log.warning("no data set was given: the report has no held-out observations to measure on")
        return Statistics(_parameters(plan, calibration), "calibration", calibration)
    scales = read_checkpoint_scales(plan.bundle)
    formats = {scheme.weight for sites in plan.schemes.values() for scheme in sites.values()}
    if scales is not None and formats == {FP8}:
        found = {graph: _from_scales(graph, scales, schemes) for graph, schemes in plan.schemes.items()}
        return Statistics(found, "checkpoint")
    if plan.needs_calibration:
        needy = sorted({s.id for sites in plan.schemes.values() for s in sites.values() if s.needs_calibration})
        raise UsageError(
            f"recipe {plan.recipe.id!r} needs calibration",
            expected="--calibration DATA: a LeRobot data set, a folder of images and states, or recorded requests",
            got="none",
            why=f"{', '.join(needy)} need the ranges of real activations; random inputs would give wrong ones",
            fix="motedge run BUNDLE --record DIR records requests; or take w8a16, which needs no data",
        )
    weights_alone = {
        graph: {site: SiteParameters(scheme) for site, scheme in schemes.items()}
        for graph, schemes in plan.schemes.items()
    }
    return Statistics(weights_alone, "weights alone")


def _parameters(plan: QuantizePlan, calibration: Calibration) -> dict[str, dict[str, SiteParameters]]:
    return {graph: calibration.parameters(graph, schemes) for graph, schemes in plan.schemes.items()}


def _from_scales(
    graph: str, scales: Mapping[str, SiteScales], schemes: Mapping[str, Scheme]
) -> dict[str, SiteParameters]:
    """As `parameters_from_scales`; what the checkpoint did not quantize of the reasoner's graphs has scales of ours."""
    own = {name for name in schemes if graph not in CALIBRATED and name not in scales}
    known = parameters_from_scales(scales, {name: scheme for name, scheme in schemes.items() if name not in own})
    return {name: SiteParameters(scheme) if name in own else known[name] for name, scheme in schemes.items()}
