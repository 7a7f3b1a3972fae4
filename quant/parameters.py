"""What calibration says about one site under one scheme: everything that emission and emulation need to know."""

from __future__ import annotations

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
