"""What calibration found, in a form that serves every scheme: one run, then any recipe.

Static scales and SmoothQuant follow from ranges by channel. AWQ searches with the data at hand, so its result is kept
beside the ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from motedge.bundle import Bundle
from motedge.errors import BundleError, UsageError
from motedge.quant.checkpoint_scales import SiteScales
from motedge.quant.numerics.formats import E4M3_MAX
from motedge.quant.parameters import SiteParameters
from motedge.quant.schemes import FP8, Scheme

# Exponent that shares the difficulty between activation and weight; 0.5 is what SmoothQuant's authors found best
SMOOTHQUANT_ALPHA = 0.5
# Bounds of a smoothing factor, as ModelOpt's
_LEAST, _GREATEST = 1e-4, 1e4


@dataclass(frozen=True)
class SiteStatistics:
    """What is known about one projection's input x [N, in] and weight W [in, out]."""

    # fp32 [in], largest |x| of each channel over everything that calibration ran
    amax: Tensor
    # fp32 [in], largest |W| of each row
    weight_amax: Tensor
    # fp32 [in], what AWQ multiplies W's rows by (x is divided by it); None where no recipe asked for it yet
    awq_scale: Optional[Tensor] = None

    def parameters(self, scheme: Scheme, name: str) -> SiteParameters:
        """How this site is quantized under a scheme.

        Args:
            scheme: the scheme.
            name: the site, for messages.

        Raises:
            UsageError: AWQ, and the search was not run for this site.
        """
        if scheme.smoothing == "smoothquant":
            factor = smoothquant_factor(self.amax, self.weight_amax)
            return SiteParameters(scheme, float((self.amax * factor).max()), factor)
        if scheme.smoothing == "awq":
            if self.awq_scale is None:
                raise UsageError(
                    f"{name} was calibrated without AWQ's search",
                    fix="calibrate again with a recipe that uses int4-awq",
                )
            return SiteParameters(scheme, None, 1.0 / self.awq_scale)
        return SiteParameters(scheme, float(self.amax.max()) if scheme.activation else None)


@dataclass(frozen=True)
class CalibrationData:
    """Where the statistics come from. Every field is JSON."""

    # Name and kind of the data set, hex sha256 of what was read from it
    dataset: str
    kind: str
    fingerprint: str
    # How calibration and held-out observations were told apart, in words
    rule: str
    # (group, index) of each observation, see motedge.quant.datasets.dataset.Moment
    calibration: tuple[tuple[str, int], ...]
    held_out: tuple[tuple[str, int], ...]
    # Forwards of the generator that were run, by "<step> <branch>"
    forwards: Mapping[str, int]
    # Steps, shift, guidance, guidance_interval, seed
    settings: Mapping[str, Any]
    # Repairs and gaps of the data, fallbacks, in words
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """Statistics of a bundle's towers."""

    # Fingerprint of the checkpoint that the bundle was made from (manifest.model["checkpoint"]["fingerprint"])
    origin: str
    data: CalibrationData
    # Graph -> site -> statistics
    graphs: Mapping[str, Mapping[str, SiteStatistics]]

    def require_origin(self, bundle: Bundle) -> None:
        """BundleError if it is of another checkpoint than the bundle."""
        if self.origin != str(bundle.manifest.model["checkpoint"]["fingerprint"]):
            raise BundleError("the calibration is of another checkpoint", fix="--calibration DATA")

    def parameters(self, graph: str, schemes: Mapping[str, Scheme]) -> dict[str, SiteParameters]:
        """Parameters of each site of a graph by the scheme that a recipe gives it.

        Raises:
            UsageError: a site that needs statistics and has none.
        """
        found = {}
        known = self.graphs.get(graph, {})
        for name, scheme in schemes.items():
            if not scheme.needs_calibration:
                found[name] = SiteParameters(scheme)
            elif name in known:
                found[name] = known[name].parameters(scheme, name)
            else:
                raise UsageError(f"graph {graph!r}: {name} was not calibrated", fix="calibrate again with this recipe")
        return found


def smoothquant_factor(amax: Tensor, weight_amax: Tensor, alpha: float = SMOOTHQUANT_ALPHA) -> Tensor:
    """What SmoothQuant multiplies x by, fp32 [in]: weight_amax^(1 - alpha) / amax^alpha; 1 for a channel of zeros."""
    factor = weight_amax.float().pow(1 - alpha) / amax.float().pow(alpha)
    dead = (amax <= 0) | (weight_amax <= 0)
    return torch.where(dead, torch.ones_like(factor), factor).clamp(_LEAST, _GREATEST)


def parameters_from_scales(
    scales: Mapping[str, SiteScales], schemes: Mapping[str, Scheme]
) -> dict[str, SiteParameters]:
    """Parameters that a quantized checkpoint brings along, for the FP8 schemes: no calibration is needed.

    Raises:
        UsageError: a scheme other than FP8, or one that needs an input scale which the checkpoint lacks.
    """
    found = {}
    for name, scheme in schemes.items():
        known = scales.get(name)
        if scheme.weight != FP8 or known is None or (scheme.activation and known.input_scale is None):
            raise UsageError(
                f"the checkpoint's own scales don't serve {name}",
                expected="an FP8 scheme, and the scales of weight and input",
                got=f"{scheme.id}, {known}",
                fix="recipe fp8-w8a16 or fp8; or give --calibration DATA",
            )
        amax = known.input_scale * E4M3_MAX if scheme.activation and known.input_scale else None
        found[name] = SiteParameters(scheme, amax, None, known.weight_scale * E4M3_MAX)
    return found
