"""Error of the action chunk: by joint, by row, in its own units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motedge.quant.fidelity.figures import Figures, figures_of
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.droid import unpack_actions
from motedge.runtime.policy.embodiments import Embodiment


@dataclass(frozen=True)
class JointError:
    """One channel of the actions, over all rows and requests."""

    field: str
    unit: str
    mean_abs: float
    max_abs: float
    # Greatest minus least value of the reference: what the error is to be seen against
    reference_span: float


@dataclass(frozen=True)
class ChunkError:
    """The action chunk."""

    # All channels together, as the policy returns them
    overall: Figures
    joints: list[JointError]
    # Mean |error|, [rows][channels], each channel in its unit
    rows: list[list[float]]


def chunk_error(actions: FloatArray, reference: FloatArray, embodiment: Embodiment) -> ChunkError:
    """Compares denoised rows fp32 [requests, A, Z], unpacked to what a robot is told."""
    own = np.stack([unpack_actions(rows) for rows in actions]).astype(np.float64)
    right = np.stack([unpack_actions(rows) for rows in reference]).astype(np.float64)
    error = np.abs(own - right)
    joints = [
        JointError(
            field,
            unit,
            float(error[:, :, index].mean()),
            float(error[:, :, index].max()),
            float(np.ptp(right[:, :, index])),
        )
        for index, (field, unit) in enumerate(zip(embodiment.fields, embodiment.units, strict=True))
    ]
    return ChunkError(figures_of(own, right), joints, error.mean(0).tolist())
