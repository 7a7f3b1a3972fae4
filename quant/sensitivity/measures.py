"""How far one result is from another: relative L2, squared, so that independent errors add up."""

from __future__ import annotations

import numpy as np

from motedge.quant.sensitivity.workload import Reference
from motedge.runtime.engine import FloatArray
from motedge.runtime.request import GenResult


def chunk_error(result: GenResult, reference: Reference) -> float:
    """Relative L2, squared, of the action rows that were generated, in the model's own units, padding left out."""
    rows = reference.inputs.action_noisy > 0
    used = slice(reference.inputs.raw_dim)
    return _relative(result.action[rows, used], reference.action[rows, used])


def latent_error(result: GenResult, reference: Reference) -> float:
    """The same for the latent frames that were generated."""
    frames = reference.inputs.vision_noisy > 0
    return _relative(result.vision[:, frames], reference.vision[:, frames])


def _relative(value: FloatArray, reference: FloatArray) -> float:
    wide = reference.astype(np.float64)
    return float(np.square(value - wide).sum() / np.square(wide).sum())
