"""How calibration is done, and what it has to find out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from motedge.errors import UsageError
from motedge.quant.schemes import Scheme

COMPUTE = ("auto", "fp32", "bf16")
# Graphs that calibration runs. The reasoner's (und, vision_encoder) are quantized by their weights alone
CALIBRATED = ("und_prefill", "gen_step")


@dataclass(frozen=True)
class CalibrationOptions:
    """How calibration is done."""

    # Observations to calibrate on, and to keep apart for measuring
    observations: int = 8
    held_out: int = 2
    # Of the choice of observations, and the first of the requests' noise seeds
    seed: int = 0
    # Type in which the towers compute; "auto": fp32, or bf16 where fp32 weights would take more than 4 GB
    compute: str = "auto"
    # torch device
    device: str = "cpu"
    # Forwards of the generator on which AWQ searches, spread over steps, branches and observations
    awq_forwards: int = 8

    def __post_init__(self) -> None:
        for name, least in (("observations", 1), ("held_out", 0), ("awq_forwards", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is too small", expected=f"at least {least}", got=getattr(self, name))
        if self.compute not in COMPUTE:
            raise UsageError("unknown type to compute in", expected=" or ".join(COMPUTE), got=self.compute)


@dataclass(frozen=True)
class Needs:
    """Sites of each graph for which something has to be found out."""

    # Ranges of the input
    ranges: Mapping[str, frozenset[str]]
    # AWQ's search
    awq: Mapping[str, frozenset[str]]

    @property
    def none(self) -> bool:
        """Whether nothing has to be found out."""
        return not any([*self.ranges.values(), *self.awq.values()])


def needs_of(schemes: Mapping[str, Mapping[str, Scheme]]) -> Needs:
    """What a recipe needs; `schemes`: graph -> site -> scheme.

    Every site that a recipe names in a graph of CALIBRATED gets ranges, weight-only ones too: they cost nothing beside
    the forward, and another recipe can then use them.
    """
    schemes = {graph: sites for graph, sites in schemes.items() if graph in CALIBRATED}
    return Needs(
        {graph: frozenset(sites) for graph, sites in schemes.items()},
        {graph: frozenset(n for n, s in sites.items() if s.smoothing == "awq") for graph, sites in schemes.items()},
    )
