"""How fidelity is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import UsageError
from motedge.runtime.comparison import QUANTIZED_GATE, Gate

ENGINES = ("auto", "onnxruntime", "torch")
COMPUTE = ("fp32", "bf16")


@dataclass(frozen=True)
class FidelityOptions:
    """How fidelity is measured."""

    # What runs: the graphs in onnxruntime, or their emulation in torch; "auto": the graphs where a CPU runs them
    engine: str = "auto"
    # Type ("fp32" or "bf16") and device of the emulation
    compute: str = "fp32"
    device: str = "cpu"
    # CPU threads of onnxruntime; None: its choice
    threads: Optional[int] = None
    gate: Gate = QUANTIZED_GATE
    # First of the noise seeds; one a held-out observation
    seed: int = 1
    # What is predicted of the time on a target, by who knows targets: see motedge.cli.predicted_latency
    latency: Optional[Mapping[str, Any]] = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError("unknown engine to measure with", expected=" or ".join(ENGINES), got=self.engine)
        if self.compute not in COMPUTE:
            raise UsageError("unknown type to compute in", expected=" or ".join(COMPUTE), got=self.compute)
        if not (-1 <= self.gate.cosine <= 1 and self.gate.relative_l2 >= 0):
            raise UsageError(
                "the gate can't be reached or is none", expected="a cosine up to 1, a relative L2 from 0", got=self.gate
            )
