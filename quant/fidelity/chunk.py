"""Error of the action chunk: by joint, by row, in its own units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motedge.quant.fidelity.figures import Figures, figures_of
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.embodiments import Embodiment
from motedge.runtime.policy.protocols import find_protocol


@dataclass(frozen=True)
class JointError:
    """One channel of the actions, over all rows and requests. Errors are None where a value is not finite."""

    field: str
    unit: str
    mean_abs: float | None
    max_abs: float | None
    # Greatest minus least value of the reference: what the error is to be seen against
    reference_span: float


@dataclass(frozen=True)
class ChunkError:
    """The action chunk."""

    # All channels together, as the policy returns them
    overall: Figures
    joints: list[JointError]
    # Mean and greatest |error| over the requests, [rows][channels], each channel in its unit; None: not finite
    rows: list[list[float | None]]
    rows_max: list[list[float | None]]


def chunk_error(actions: FloatArray, reference: FloatArray, embodiment: Embodiment) -> ChunkError:
    """Compares denoised rows fp32 [requests, A, Z], unpacked to what a robot is told."""
    unpack = find_protocol(embodiment).actions
    own, right = (np.stack([unpack(rows) for rows in made]).astype(np.float64) for made in (actions, reference))
    error = np.abs(own - right)
    joints = [
        JointError(
            field,
            unit,
            _finite(error[:, :, index].mean()),
            _finite(error[:, :, index].max()),
            float(np.ptp(right[:, :, index])),
        )
        for index, (field, unit) in enumerate(zip(embodiment.fields, embodiment.units, strict=True))
    ]
    return ChunkError(figures_of(own, right), joints, _rows(error.mean(0)), _rows(error.max(0)))


def _rows(values: NDArray[Any]) -> list[list[float | None]]:
    return [[_finite(value) for value in row] for row in values]


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
