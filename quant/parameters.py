"""What calibration says about one site under one scheme: everything that emission and emulation need to know."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from torch import Tensor

from motedge.quant.schemes import Scheme


@dataclass(frozen=True)
class SiteParameters:
    """How one projection y = x W is quantized: codes of W follow from W and these alone."""

    scheme: Scheme
    # Largest |x| that calibration saw, of the smoothed x if it is smoothed; None where x is not quantized
    input_amax: Optional[float] = None
    # fp32 [in], what x is multiplied by before everything else; W's rows are divided by it. None: no smoothing
    pre_quant_scale: Optional[Tensor] = None
    # Largest |W| to use in place of the weight's own: a quantized checkpoint brings it. FP8 only
    weight_amax: Optional[float] = None


def parameters_digest(parameters: Mapping[str, SiteParameters]) -> str:
    """Hex sha256 over the parameters of a graph's sites: equal where the quantized graph would be."""
    digest = hashlib.sha256()
    for name, known in sorted(parameters.items()):
        numbers = [name, known.scheme.id, known.input_amax, known.weight_amax]
        digest.update(json.dumps(numbers).encode())
        if known.pre_quant_scale is not None:
            digest.update(known.pre_quant_scale.float().contiguous().numpy().tobytes())
    return digest.hexdigest()
