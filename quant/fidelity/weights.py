"""Error of every quantized weight against the bundle's own, one weight in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from motedge.bundle import Bundle
from motedge.errors import InternalError
from motedge.quant.fidelity.figures import Figures, figures_of
from motedge.quant.numerics.weight import quantize_weight
from motedge.quant.parameters import SiteParameters
from motedge.quant.source import BundleWeights


@dataclass(frozen=True)
class SiteError:
    """Errors of one projection."""

    graph: str
    site: str
    layer: int
    # Without the layer: "self_attn.add_q_proj"
    projection: str
    scheme: str
    # Bits of one weight, its share of the scales included
    weight_bits: float
    parameters: int
    weight: Figures
    # Of its input on held-out data, after smoothing; None where it was not measured or is not quantized
    activation: Figures | None = None
    # Largest |x| on held-out data over the largest that calibration saw; above 1, values are clipped
    range_ratio: float | None = None
    # Share of values beyond the calibrated range, of the rows that were looked at
    clipped: float | None = None


def weight_errors(
    bundle: Bundle, parameters: Mapping[str, Mapping[str, SiteParameters]], dtype: torch.dtype
) -> list[SiteError]:
    """Quantizes each weight as the graph of `dtype` holds it, smoothing undone, and compares.

    Raises:
        InternalError: parameters of a site that the graph has not.
    """
    found = []
    for graph, known in parameters.items():
        weights = BundleWeights.open(bundle, graph)
        sites = weights.sites()
        strange = sorted(set(known) - {site.name for site in sites})
        if strange:
            raise InternalError(f"graph {graph!r} has no site {strange[0]}")
        for site in sites:
            if site.name not in known:
                continue
            own = known[site.name]
            weight = weights.tensor(site.key).float()
            result = quantize_weight(site.name, weight, own, dtype).dequantize()
            if own.pre_quant_scale is not None:
                result = result * own.pre_quant_scale.to(dtype).float()[:, None]
            figures = figures_of(result.numpy(), weight.numpy())
            found.append(
                SiteError(
                    graph=graph,
                    site=site.name,
                    layer=site.layer,
                    projection=site.projection,
                    scheme=own.scheme.id,
                    weight_bits=own.scheme.weight_bits,
                    parameters=site.parameters,
                    weight=figures,
                )
            )
    return found
