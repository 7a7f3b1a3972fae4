"""What can be said against a projection's parameters before any weight is read."""

from __future__ import annotations

import math

import torch

from motedge.errors import ExportError
from motedge.quant.parameters import SiteParameters
from motedge.quant.sites import Site

_AGAIN = "calibrate again"


def check_parameters(site: Site, known: SiteParameters, dtype: torch.dtype) -> None:
    """Refuses parameters of which no sound graph can be made.

    Args:
        site: the projection, W [in, out].
        known: its parameters.
        dtype: the graph's floating type, in which scales are kept.

    Raises:
        ExportError: `in` is no multiple of the scheme's block; a range that is missing, zero, negative or not finite; a
            smoothing vector of another length, or with a value that is no positive number in `dtype`.
    """
    block = known.scheme.block
    if block is not None and site.inputs % block:
        raise ExportError(
            f"{site.key} does not divide into blocks",
            expected=f"a multiple of {block} inputs",
            got=site.inputs,
            fix='give this projection another scheme, or "none"',
        )
    if known.scheme.activation is not None:
        _check_range(f"the input of {site.name}", known.input_amax)
    if known.weight_amax is not None:
        _check_range(site.key, known.weight_amax)
    factor = known.pre_quant_scale
    if factor is None:
        return
    if tuple(factor.shape) != (site.inputs,):
        raise ExportError(
            f"the smoothing of {site.name} does not fit its input",
            expected=(site.inputs,),
            got=tuple(factor.shape),
            fix=_AGAIN,
        )
    held = factor.to(dtype)
    sound = torch.isfinite(held) & (held > 0)
    if not sound.all():
        channel = int(torch.nonzero(~sound)[0])
        raise ExportError(
            f"the smoothing of {site.name} is unusable in channel {channel}",
            expected=f"a positive number in {dtype}",
            got=float(factor[channel]),
            why="the weight's rows are divided by it",
            fix=_AGAIN,
        )


def _check_range(what: str, amax: float | None) -> None:
    if amax is None or not math.isfinite(amax) or amax <= 0:
        raise ExportError(
            f"{what} has no range",
            expected="the largest magnitude that calibration saw, above zero",
            got=amax,
            why="a scale follows from it",
            fix=_AGAIN,
        )
