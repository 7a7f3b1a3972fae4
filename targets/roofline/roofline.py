"""Time of a computation on a target: each kernel takes as long as its arithmetic or its memory, whichever is longer.

Nominal rates come from the catalogue, the share of them that good software reaches from `fit.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from motedge.errors import UsageError
from motedge.targets.catalog import Target
from motedge.targets.roofline.work import OperatorWork, Work

COMPUTE, MEMORY = "compute", "memory"
# Kinds whose arithmetic counts; the others move data
_MATRIX = ("gemm", "attention", "conv")
_SIXTEEN_BIT = ("fp16", "bf16")
# 90 % of a normal distribution lie within so many standard deviations
_NINETY_PERCENT = 1.645


@dataclass(frozen=True)
class Efficiency:
    """Shares of nominal rates that are reached, 0 to 1."""

    # Of the dense 16-bit rate, by projections and convolutions
    gemm: float
    # Of the same, by attention
    attention: float
    # Of the dense 8- and 4-bit rates, by projections
    narrow: float
    # Of the memory's bandwidth
    memory: float
    # Standard deviation of the logarithm of predicted over published, of sources that the fit had not seen
    log_error: float
    # Origins of figures of this class of devices; empty: borrowed from the other classes
    sources: tuple[str, ...]
    # What published programs spend on a request outside the towers and the encoder's arithmetic, s; no stage has it
    request_s: float = 0.0

    @property
    def factor(self) -> float:
        """Nine times out of ten the truth lies within prediction / factor and prediction * factor, as far as known."""
        return math.exp(_NINETY_PERCENT * self.log_error)


# Every nominal rate reached in full
IDEAL = Efficiency(1.0, 1.0, 1.0, 1.0, 0.0, ())


@dataclass(frozen=True)
class StageTime:
    """Predicted time of one run."""

    time_s: float
    low_s: float
    high_s: float
    # COMPUTE or MEMORY: which side the kernels' times come from, for the most part
    bound: str
    # All arithmetic, and all traffic, alone
    flops_s: float
    bytes_s: float


def predict(work: Work, target: Target, efficiency: Optional[Efficiency] = None) -> StageTime:
    """Time of one run of `work` on `target`.

    Args:
        work: what is computed.
        target: the device, at its highest power mode.
        efficiency: None takes what was fitted to published figures of the target's class.

    Raises:
        UsageError: the catalogue does not know the target's bandwidth or its rate of a type.
    """
    if efficiency is None:
        from motedge.targets.roofline.fit import efficiency_of

        efficiency = efficiency_of(target.architecture)
    bandwidth = target.bandwidth_gbps.value
    if not bandwidth:
        raise UsageError(
            f"the memory bandwidth of {target.name} is not known",
            why=target.bandwidth_gbps.source,
            fix="give a .toml file of the device with the figure",
        )
    total = flops_s = bytes_s = compute_bound = 0.0
    for operator in work.operators:
        arithmetic = operator.times * _arithmetic_s(operator, target, efficiency)
        traffic = operator.times * operator.bytes / (efficiency.memory * bandwidth * 1e9)
        flops_s, bytes_s = flops_s + arithmetic, bytes_s + traffic
        total += max(arithmetic, traffic)
        compute_bound += arithmetic if arithmetic > traffic else 0.0
    bound = COMPUTE if compute_bound > total / 2 else MEMORY
    return StageTime(total, total / efficiency.factor, total * efficiency.factor, bound, flops_s, bytes_s)


def _arithmetic_s(operator: OperatorWork, target: Target, efficiency: Efficiency) -> float:
    if operator.kind not in _MATRIX or not operator.flops:
        return 0.0
    figure = target.dense_tflops.get(operator.type)
    if figure is None or not figure.value:
        raise UsageError(
            f"the {operator.type} rate of {target.name} is not known",
            why=figure.source if figure is not None else "the catalogue has none: the hardware has no fast path for it",
        )
    if operator.kind == "attention":
        share = efficiency.attention
    else:
        share = efficiency.gemm if operator.type in (*_SIXTEEN_BIT, "fp32") else efficiency.narrow
    return operator.flops / (share * figure.value * 1e12)
