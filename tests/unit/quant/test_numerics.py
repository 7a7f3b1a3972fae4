"""Formats and weights against ModelOpt's own tensors and against the definitions of the formats."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import ExportError, InternalError
from motedge.quant.numerics import nvfp4
from motedge.quant.numerics.activation import activation_scale, fake_quantize
from motedge.quant.numerics.formats import E2M1_VALUES, e2m1_codes, e2m1_values, round_e2m1, round_e4m3
from motedge.quant.numerics.weight import quantize_weight
from motedge.quant.parameters import SiteParameters
from motedge.quant.schemes import SCHEMES

FP32 = torch.float32
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _weight(seed: int = 0, shape: tuple[int, int] = (256, 96)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * torch.logspace(-2, 0, shape[0])[:, None]


def test_e2m1_rounds_to_the_nearest_value_ties_to_even_codes() -> None:
    x = torch.arange(-32, 33) / 4.0  # every value, every midpoint, and beyond the range
    values = np.array(E2M1_VALUES)
    for one, code in zip(x.tolist(), e2m1_codes(x).tolist(), strict=True):
        distance = np.abs(values - min(abs(one), 6.0))
        nearest = np.flatnonzero(distance == distance.min())
        expected = next(int(c) for c in nearest if len(nearest) == 1 or c % 2 == 0)
        assert code & 7 == expected, one
    assert torch.equal(e2m1_values(e2m1_codes(x)), round_e2m1(x) + 0.0)


@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_both_ways_of_rounding_to_e2m1_agree(numbers: list[float]) -> None:
    x = torch.tensor(numbers)
    assert torch.equal(e2m1_values(e2m1_codes(x)), round_e2m1(x) + 0.0)


def test_e4m3_saturates_instead_of_becoming_nan() -> None:
    assert round_e4m3(torch.tensor([1e6, -1e6, 464.0])).float().tolist() == [448.0, -448.0, 448.0]


@pytest.mark.parametrize("seed", range(3))
def test_nvfp4_weights_equal_modelopts(seed: int) -> None:
    qtensor = pytest.importorskip("modelopt.torch.quantization.qtensor.nvfp4_tensor")
    weight = _weight(seed)
    ours = quantize_weight("w", weight, SiteParameters(SCHEMES["nvfp4"], 1.0), FP32)
    theirs, scale, double = qtensor.NVFP4QTensor.quantize(weight.t().contiguous(), 16)
    dequantized = theirs.dequantize(dtype=FP32, scale=scale, double_scale=double, block_sizes={-1: 16})
    assert torch.equal(ours.scale.t().float(), scale.float())
    # The global scale is rounded up here, by one unit in the last place at most
    torch.testing.assert_close(ours.dequantize(), dequantized.t(), rtol=3e-7, atol=0)


@pytest.mark.parametrize(("scheme", "axis"), [("fp8-w8a16", None), ("int8-w8a16", 0), ("int4-w4a16", None)])
def test_weights_equal_modelopts_fake_quantization(scheme: str, axis: int | None) -> None:
    quantization = pytest.importorskip("modelopt.torch.quantization")
    attributes = {
        "fp8-w8a16": {"num_bits": (4, 3), "axis": None},
        "int8-w8a16": {"num_bits": 8, "axis": axis},
        "int4-w4a16": {"num_bits": 4, "block_sizes": {-1: 128, "type": "static"}},
    }[scheme]
    quantizer = quantization.nn.TensorQuantizer(quantization.config.QuantizerAttributeConfig(**attributes))
    # Values that were bf16 often lie on the border between two codes
    weight = _weight().bfloat16().float()
    quantization.model_calib.max_calibrate(quantizer, lambda q: q(weight.t().contiguous()))
    ours = quantize_weight("w", weight, SiteParameters(SCHEMES[scheme]), FP32).dequantize()
    torch.testing.assert_close(ours, quantizer(weight.t().contiguous()).t(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("scheme", "dtype"), itertools.product(SCHEMES, DTYPES))
def test_scales_are_held_by_the_graphs_type(scheme: str, dtype: torch.dtype) -> None:
    """A strongly typed engine keeps scales in the graph's type; codes found with another scale would be wrong."""
    parameters = SiteParameters(SCHEMES[scheme], 3.7)
    weight = quantize_weight("w", _weight() * 1e-3, parameters, dtype)
    scale = torch.tensor(weight.global_scale) if weight.global_scale is not None else weight.scale
    assert torch.equal(scale.to(dtype).float(), scale.float())
    if SCHEMES[scheme].activation:
        held = activation_scale(parameters, dtype)
        assert float(torch.tensor(held, dtype=dtype)) == held > 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_error_is_what_the_format_promises(scheme: str) -> None:
    """Half a step of the largest value of each group, and never more."""
    weight = _weight()
    found = quantize_weight("w", weight, SiteParameters(SCHEMES[scheme], 1.0), FP32).dequantize()
    block = SCHEMES[scheme].block or len(weight)
    largest = weight.abs().reshape(-1, block, weight.shape[1]).amax(1).repeat_interleave(block, 0)
    # Steps at the top of the range: E4M3 32 of 448, E2M1 2 of 6; NVFP4 rounds its block scale too (1 part in 16)
    step = {"fp8": 32 / 448, "int8": 1 / 127, "int4": 1 / 7, "nvfp4": 2 / 6 + 1 / 8}[SCHEMES[scheme].weight]
    reach = weight.abs().max() if SCHEMES[scheme].weight == "fp8" else largest
    assert bool(((found - weight).abs() <= reach * (step / 2 + 1e-6)).all())


def test_smoothing_leaves_the_product() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, x = _weight(2), torch.randn(32, 256, generator=generator)
    factor = torch.rand(256, generator=generator) + 0.5
    parameters = SiteParameters(SCHEMES["int8-sq"], float((x * factor).abs().max()), factor)
    y = fake_quantize(x, parameters, FP32) @ quantize_weight("w", weight, parameters, FP32).dequantize()
    assert float((y - x @ weight).norm() / (x @ weight).norm()) < 0.03


def test_columns_of_zeros_stay_zero() -> None:
    weight = _weight()
    weight[:, 3] = 0
    for scheme in SCHEMES:
        found = quantize_weight("w", weight, SiteParameters(SCHEMES[scheme], 1.0), torch.float16).dequantize()
        assert torch.isfinite(found).all()
        assert not found[:, 3].any(), scheme


def test_nvfp4_activations_of_zero_and_of_tiny_blocks() -> None:
    x = torch.zeros(2, 32)
    x[0, 0], x[1, 16] = 100.0, 1e-7
    found = nvfp4.fake_quantize_dynamic(x, nvfp4.global_scale(100.0, FP32))
    assert float(found[0, 0]) == pytest.approx(100.0, rel=1e-6)
    assert not found[1].any()


def test_refusals() -> None:
    with pytest.raises(ExportError, match="does not divide into blocks"):
        quantize_weight("w", torch.ones(100, 8), SiteParameters(SCHEMES["int4-w4a16"]), FP32)
    for scheme in ("fp8", "nvfp4"):
        with pytest.raises(ExportError, match="w is all zeros"):
            quantize_weight("w", torch.zeros(128, 8), SiteParameters(SCHEMES[scheme], 1.0), FP32)
    with pytest.raises(InternalError, match="no activation scale"):
        activation_scale(SiteParameters(SCHEMES["fp8"], None), FP32)
