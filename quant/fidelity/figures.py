"""How far a tensor is from its reference, summed up piece by piece."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.runtime.comparison import Gate


@dataclass(frozen=True)
class Figures:
    """Error of a tensor, or of several taken together. Numbers are None where a value is not finite."""

    # Least is best
    relative_l2: Optional[float]
    # 1 is best
    cosine: Optional[float]
    # Signal to quantization noise ratio, dB; None where there is no noise at all
    sqnr_db: Optional[float]
    max_abs: Optional[float]
    elements: int
    # NaN or infinite values, of either side
    non_finite: int = 0

    def passes(self, gate: Gate) -> bool:
        """Whether it reaches the gate; never with a value that is not finite."""
        if self.non_finite or self.cosine is None or self.relative_l2 is None:
            return False
        return self.cosine >= gate.cosine and self.relative_l2 <= gate.relative_l2

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)


class ErrorSum:
    """Adds up errors in fp64, so that large tensors need not be held."""

    def __init__(self) -> None:
        self._own = self._reference = self._product = self._noise = self._largest = 0.0
        self._elements = self._wrong = 0

    def add(self, result: NDArray[Any], reference: NDArray[Any]) -> None:
        """Takes in two arrays of one shape."""
        a, b = np.asarray(result, np.float64).ravel(), np.asarray(reference, np.float64).ravel()
        self._elements += a.size
        bad = int(np.count_nonzero(~(np.isfinite(a) & np.isfinite(b))))
        self._wrong += bad
        if bad or not a.size:
            return
        difference = a - b
        self._own += float(a @ a)
        self._reference += float(b @ b)
        self._product += float(a @ b)
        self._noise += float(difference @ difference)
        self._largest = max(self._largest, float(np.abs(difference).max()))

    def figures(self) -> Figures:
        """What it comes to. Against a reference of zeros, any other result is infinitely far: None."""
        if self._wrong:
            return Figures(None, None, None, None, self._elements, self._wrong)
        if not self._reference:
            nothing = self._noise == 0
            return Figures(0.0 if nothing else None, 1.0 if nothing else None, None, self._largest, self._elements)
        cosine = self._product / math.sqrt(self._own * self._reference) if self._own else 0.0
        sqnr = 10 * math.log10(self._reference / self._noise) if self._noise else None
        return Figures(math.sqrt(self._noise / self._reference), min(1.0, cosine), sqnr, self._largest, self._elements)


def figures_of(result: NDArray[Any], reference: NDArray[Any]) -> Figures:
    """The error of one array."""
    total = ErrorSum()
    total.add(result, reference)
    return total.figures()
