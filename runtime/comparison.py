"""How far a result lies from its reference, and whether that is near enough."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from motedge.errors import BundleError, closest
from motedge.runtime.engine import Array
from motedge.runtime.finite import is_finite


@dataclass(frozen=True)
class Gate:
    """What a comparison must reach."""

    # Least cosine between result and reference
    cosine: float
    # Greatest |result - reference| / |reference|, Euclidean norms
    relative_l2: float

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Gate:
        """Parses `{"cosine": ..., "relative_l2": ...}`; BundleError on another key or value."""
        names = [f.name for f in dataclasses.fields(cls)]
        for key in raw:
            if key not in names:
                raise BundleError(f"a gate has an unknown key {key!r}", fix=closest(key, names))
        try:
            gate = cls(**{name: float(raw[name]) for name in names})
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("a gate lacks a number", expected=", ".join(names), got=repr(error)) from error
        if not (math.isfinite(gate.cosine) and math.isfinite(gate.relative_l2)):
            raise BundleError("a gate is not a number", got=dict(raw))
        return gate


# fp32 against fp32 leaves accumulation order alone; 16-bit weights and activations through 28 to 64 layers give
# 1 to 3 % relative L2 (spread published for one bf16 forward of the generator at policy size)
DEFAULT_GATES = {
    "fp32": Gate(cosine=0.999999, relative_l2=1e-4),
    "fp16": Gate(cosine=0.999, relative_l2=3e-2),
    "bf16": Gate(cosine=0.999, relative_l2=3e-2),
}
# What a published FP8 generator reached on a Jetson was held against; also the default gate of a fidelity report
QUANTIZED_GATE = Gate(cosine=0.999, relative_l2=3e-2)


@dataclass(frozen=True)
class Comparison:
    """One tensor against its reference. Numbers are None where a value is not finite."""

    tensor: str
    elements: int
    cosine: Optional[float]
    relative_l2: Optional[float]
    max_abs_error: Optional[float]
    # Values that are NaN or infinite, of either side
    non_finite: int

    def passes(self, gate: Gate) -> bool:
        """Whether the gate is reached; never with a value that is not finite."""
        if self.non_finite or self.cosine is None or self.relative_l2 is None:
            return False
        return self.cosine >= gate.cosine and self.relative_l2 <= gate.relative_l2


def compare(tensor: str, result: Array, reference: Array) -> Comparison:
    """Compares in fp64.

    Two vectors that are both zero have cosine 1 and error 0; against a zero reference any other is infinitely far.

    Raises:
        BundleError: the shapes differ.
    """
    if result.shape != reference.shape:
        raise BundleError(
            f"the sample of {tensor} has another shape than the graph's output",
            expected=list(result.shape),
            got=list(reference.shape),
            fix="export again",
        )
    a, b = result.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    if not (is_finite(a) and is_finite(b)):
        wrong = int(np.count_nonzero(~(np.isfinite(a) & np.isfinite(b))))
        return Comparison(tensor, a.size, None, None, None, wrong)
    norm_a, norm_b, distance = (float(np.linalg.norm(v)) for v in (a, b, a - b))
    cosine = 1.0 if norm_a == norm_b else 0.0
    if norm_a and norm_b:
        # Rounding can leave the quotient an ulp above 1
        cosine = min(1.0, float(a @ b) / norm_a / norm_b)
    relative = distance / norm_b if norm_b else (0.0 if distance == 0 else math.inf)
    error = float(np.abs(a - b).max()) if a.size else 0.0
    return Comparison(tensor, a.size, cosine, relative, error, 0)
