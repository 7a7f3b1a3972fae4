"""Parameters of which no sound graph can be made are refused before anything is read or written."""

from __future__ import annotations

import math

import pytest
import torch

from motedge.errors import ExportError
from motedge.quant.emission.checks import check_parameters
from motedge.quant.parameters import SiteParameters
from motedge.quant.schemes import SCHEMES
from motedge.quant.sites import Site

SITE = Site("layers.1.mlp.up_proj", 1, 256, 32)
FP32, FP16 = torch.float32, torch.float16


@pytest.mark.parametrize("scheme", SCHEMES)
def test_sound_parameters_pass(scheme: str) -> None:
    factor = torch.full((256,), 0.5) if SCHEMES[scheme].smoothing else None
    check_parameters(SITE, SiteParameters(SCHEMES[scheme], 1.0, factor), FP16)


@pytest.mark.parametrize(("scheme", "block"), [("int4-awq", 128), ("nvfp4", 16), ("nvfp4-w4a16", 16)])
def test_blocks_must_divide(scheme: str, block: int) -> None:
    odd = Site(SITE.name, 1, 256 + block // 2, 32)
    with pytest.raises(ExportError, match=rf"(?s)up_proj\.weight does not divide.*multiple of {block}.*{odd.inputs}"):
        check_parameters(odd, SiteParameters(SCHEMES[scheme], 1.0), FP32)


@pytest.mark.parametrize("amax", [None, 0.0, -1.0, math.nan, math.inf])
def test_a_range_must_be_a_positive_number(amax: float | None) -> None:
    for scheme in ("fp8", "int8-sq", "nvfp4"):
        with pytest.raises(ExportError, match=r"the input of layers\.1\.mlp\.up_proj has no range"):
            check_parameters(SITE, SiteParameters(SCHEMES[scheme], amax), FP32)
    # Not asked for where activations stay as they are
    check_parameters(SITE, SiteParameters(SCHEMES["int8-w8a16"], amax), FP32)


def test_a_checkpoints_range_of_the_weight() -> None:
    with pytest.raises(ExportError, match=r"layers\.1\.mlp\.up_proj\.weight has no range"):
        check_parameters(SITE, SiteParameters(SCHEMES["fp8"], 1.0, None, 0.0), FP32)


def test_smoothing_must_fit() -> None:
    with pytest.raises(ExportError, match="does not fit its input"):
        check_parameters(SITE, SiteParameters(SCHEMES["int8-sq"], 1.0, torch.ones(255)), FP32)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_smoothing_must_be_positive(value: float) -> None:
    factor = torch.ones(256)
    factor[7] = value
    with pytest.raises(ExportError, match="unusable in channel 7"):
        check_parameters(SITE, SiteParameters(SCHEMES["int4-awq"], None, factor), FP32)


@pytest.mark.parametrize("value", [1e-9, 1e6])
def test_smoothing_must_be_held_by_the_graphs_type(value: float) -> None:
    """What fp32 holds may be zero or infinite in fp16; the weight is divided by it."""
    factor = torch.ones(256)
    factor[200] = value
    known = SiteParameters(SCHEMES["int8-sq"], 1.0, factor)
    check_parameters(SITE, known, FP32)
    with pytest.raises(ExportError, match="unusable in channel 200"):
        check_parameters(SITE, known, FP16)
