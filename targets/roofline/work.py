"""What a computation asks of a device: FLOPs and bytes, operator by operator."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

KINDS = ("gemm", "attention", "conv", "elementwise")


@dataclass(frozen=True)
class OperatorWork:
    """One kernel."""

    # One of KINDS
    kind: str
    # 2 a multiply-add
    flops: float
    # Weights as stored, read once
    weight_bytes: float
    # Read and written
    activation_bytes: float
    # Type in which it multiplies: "fp32", "fp16", "bf16", "int8", "fp8" or "nvfp4"
    type: str
    # How often it runs
    times: int = 1

    @property
    def bytes(self) -> float:
        """Everything that one run moves."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True)
class Work:
    """One run of a graph."""

    operators: tuple[OperatorWork, ...]

    @property
    def flops(self) -> float:
        """Of all operators."""
        return sum(operator.times * operator.flops for operator in self.operators)

    @property
    def weight_bytes(self) -> float:
        """Of all operators; a weight that is read twice counts twice."""
        return sum(operator.times * operator.weight_bytes for operator in self.operators)

    @property
    def bytes(self) -> float:
        """Weights and activations."""
        return sum(operator.times * operator.bytes for operator in self.operators)

    def repeated(self, times: int) -> Work:
        """The same, so many times over."""
        return Work(tuple(dataclasses.replace(operator, times=times * operator.times) for operator in self.operators))
