"""What is written can be read by onnx itself, whatever the type; two values a byte where the format says so."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from motedge.export.weights import PAGE
from motedge.quant.emission.data_file import DataFile

VALUES = {
    "fp32": (torch.randn(3, 5), None),
    "fp16": (torch.randn(3, 5).half(), None),
    "bf16": (torch.randn(3, 5).bfloat16(), None),
    "fp8": (torch.randn(64, 80).to(torch.float8_e4m3fn), None),
    "int8": (torch.randint(-128, 128, (7, 3)).to(torch.int8), None),
    "int4": (torch.randint(-8, 8, (6, 5)).to(torch.int8), TensorProto.INT4),
    "fp4": (torch.randint(0, 16, (128, 80)).to(torch.uint8), TensorProto.FLOAT4E2M1),
}
# OCP MX specification, codes 0..15
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


@pytest.fixture
def model(tmp_path: Path) -> onnx.ModelProto:
    """A file that holds every kind of tensor one after another, read back by onnx."""
    with open(tmp_path / "w.data", "wb") as stream:
        data = DataFile(stream, "w.data")
        tensors = [data.add(name, values, kind) for name, (values, kind) in VALUES.items()]
    graph = helper.make_graph([], "tensors", [], [], tensors)
    onnx.save(helper.make_model(graph), str(tmp_path / "m.onnx"))
    assert data.size == (tmp_path / "w.data").stat().st_size
    assert data.sha256 == hashlib.sha256((tmp_path / "w.data").read_bytes()).hexdigest()
    return onnx.load(str(tmp_path / "m.onnx"))


def test_onnx_reads_what_was_written(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        values, _ = VALUES[tensor.name]
        found = numpy_helper.to_array(tensor).astype(np.float64)
        expected = E2M1[values.numpy()] if tensor.name == "fp4" else values.double().numpy()
        np.testing.assert_array_equal(found, expected, tensor.name)


def test_the_first_of_two_values_is_in_the_low_half(tmp_path: Path) -> None:
    """onnx.proto: "the first element is stored in the 4 LSB"."""
    with open(tmp_path / "w.data", "wb") as stream:
        data = DataFile(stream, "w.data")
        data.add("w", torch.tensor([[1, -2], [-8, 7]], dtype=torch.int8), TensorProto.INT4)
    assert (tmp_path / "w.data").read_bytes() == bytes([0xE1, 0x78])


def test_large_tensors_begin_on_a_page_and_small_ones_on_a_line(tmp_path: Path) -> None:
    with open(tmp_path / "w.data", "wb") as stream:
        data = DataFile(stream, "w.data")
        protos = [data.add("a", torch.ones(3)), data.add("b", torch.ones(5)), data.add("c", torch.ones(PAGE))]
    assert [int(e.value) for p in protos for e in p.external_data if e.key == "offset"] == [0, 64, PAGE]


def test_a_scratch_of_strides_is_no_trap(tmp_path: Path) -> None:
    """Transposed views are written in the order of their shape."""
    values = torch.arange(6, dtype=torch.float32).reshape(2, 3).t()
    packed = torch.arange(8, dtype=torch.int8).reshape(2, 4).t()
    with open(tmp_path / "w.data", "wb") as stream:
        data = DataFile(stream, "w.data")
        data.add("a", values)
        data.add("b", packed, TensorProto.INT4)
    raw = (tmp_path / "w.data").read_bytes()
    assert np.frombuffer(raw[:24], np.float32).tolist() == [0, 3, 1, 4, 2, 5]
    assert raw[64:] == bytes([0x40, 0x51, 0x62, 0x73])
