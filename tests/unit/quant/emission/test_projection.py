"""The operators around one MatMul, run by onnxruntime or onnx's reference, against the definitions of the formats."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from quantized_projection import run_on_onnxruntime, run_on_reference, write_projection

from motedge.quant.numerics.activation import fake_quantize
from motedge.quant.numerics.weight import quantize_weight
from motedge.quant.parameters import SiteParameters
from motedge.quant.schemes import NVFP4, SCHEMES

INPUTS, OUTPUTS, ROWS, AMAX = 256, 32, 8, 3.7
NUMPY = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16}
# Half the distance of two neighbouring numbers, relative
ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def weight() -> torch.Tensor:
    """[in, out] as a checkpoint has it: values that were bf16, a column of zeros, a row of outliers."""
    values = torch.randn(INPUTS, OUTPUTS, generator=torch.Generator().manual_seed(3)) * 0.05
    values[:, 5] = 0
    values[17] *= 20
    return values.bfloat16().float()


def activations(dtype: torch.dtype) -> torch.Tensor:
    """[rows, in]: beyond the calibrated range, blocks of zeros, blocks far below it."""
    x = torch.randn(ROWS, INPUTS, generator=torch.Generator().manual_seed(4))
    x[0] *= 20
    x[1, :64] = 0
    x[2, :32] *= 1e-7
    x[3, ::16] *= 100
    return x.to(dtype)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_onnxruntime_computes_what_the_emulation_says(tmp_path: Path, scheme: str) -> None:
    """Bit for bit, codes and scales; NVFP4 in its emulation."""
    known, values, x = SiteParameters(SCHEMES[scheme], AMAX), weight(), activations(torch.float32)
    emulated = SCHEMES[scheme].weight == NVFP4
    path = write_projection(tmp_path, values, known, torch.float32, ROWS, emulated=emulated)
    found = run_on_onnxruntime(path, x.numpy())
    expected = quantize_weight("w", values, known, torch.float32).dequantize()
    # An emulated weight is 2 code * (scale / 2): the same number, for a factor of two is exact
    np.testing.assert_array_equal(found["w_held"], expected.numpy())
    np.testing.assert_array_equal(found["x_held"], fake_quantize(x, known, torch.float32).numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scheme", ["fp8", "int8-sq", "int4-w4a16"])
def test_sixteen_bit_scales(tmp_path: Path, scheme: str, dtype: torch.dtype) -> None:
    """The graph's own scales dequantize its codes: no further from the weight than one rounding of the result."""
    known, values, x = SiteParameters(SCHEMES[scheme], AMAX), weight(), activations(dtype)
    found = run_on_reference(
        write_projection(tmp_path, values, known, dtype, ROWS), x.float().numpy().astype(NUMPY[dtype])
    )
    expected = quantize_weight("w", values, known, dtype).dequantize().numpy()
    held = found["w_held"].astype(np.float32)
    # Below 6e-5 fp16 has steps of 2**-24
    np.testing.assert_allclose(held, expected, rtol=ROUNDOFF[dtype], atol=2**-25)
    assert found["w_held"].dtype == found["x_held"].dtype == NUMPY[dtype]


@pytest.mark.parametrize("dtype", list(NUMPY))
def test_tensorrts_form_of_nvfp4_holds_modelopts_weight(tmp_path: Path, dtype: torch.dtype) -> None:
    """No runtime here has FLOAT4E2M1; onnx's reference evaluator does."""
    qtensor = pytest.importorskip("modelopt.torch.quantization.qtensor.nvfp4_tensor")
    known, values = SiteParameters(SCHEMES["nvfp4-w4a16"]), weight()
    path = write_projection(tmp_path, values, known, dtype, ROWS)
    held = run_on_reference(path, np.zeros((ROWS, INPUTS), NUMPY[dtype]))["w_held"].astype(np.float32)
    whole = quantize_weight("w", values, known, dtype).global_scale
    # ModelOpt's own global scale is fp32; with ours, rounded to the graph's type, block scales may take another code
    codes, scale, double = qtensor.NVFP4QTensor.quantize(
        values.t().contiguous(), 16, weights_scaling_factor_2=torch.tensor(whole)
    )
    theirs = codes.dequantize(dtype=torch.float32, scale=scale, double_scale=double, block_sizes={-1: 16}).t().numpy()
    # Rounded twice: the scale of the block and its product with the code, which is exact up to a power of two or 1.5
    assert (np.abs(held - theirs) <= 2.1 * ROUNDOFF[dtype] * np.abs(theirs)).all()
    assert np.abs(theirs).max() == pytest.approx(float(values.abs().max()), rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tensorrts_form_of_nvfp4_quantizes_the_activation_along_its_last_axis(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """With the operator by the format's definition, the two dequantizations around it give the emulation's values."""
    known, x = SiteParameters(SCHEMES["nvfp4"], AMAX), activations(dtype)
    found = run_on_reference(write_projection(tmp_path, weight(), known, dtype, ROWS), x.numpy())["x_held"]
    expected = fake_quantize(x.float(), known, dtype).numpy()
    # Blocks of tiny values become zero in ModelOpt's kernel, and so in the emulation: far below anything that matters
    close = np.isclose(found.astype(np.float32), expected, rtol=2.1 * ROUNDOFF[dtype], atol=2e-5)
    # A value on the border of two codes, or a scale on one of E4M3, may fall on either side
    assert close.mean() > 0.999


def test_beyond_the_calibrated_range_values_are_cut(tmp_path: Path) -> None:
    for scheme in ("fp8", "int8-sq"):
        known = SiteParameters(SCHEMES[scheme], AMAX)
        x = np.full((ROWS, INPUTS), 1e4, np.float32)
        folder = tmp_path / scheme
        folder.mkdir()
        held = run_on_onnxruntime(write_projection(folder, weight(), known, torch.float32, ROWS), x)["x_held"]
        np.testing.assert_allclose(held, AMAX, rtol=1e-6)
