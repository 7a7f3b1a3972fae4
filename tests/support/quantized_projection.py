"""One quantized projection y = q(x) q(W) as an ONNX file of its own, in the operators that whole graphs get."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import Tensor

from motedge.export.onnx_file import check_model
from motedge.quant.emission.data_file import ONNX_TYPES, DataFile
from motedge.quant.emission.nodes import TRT_DOMAIN, NodeList, emulate_nvfp4, quantize_nvfp4, quantize_static
from motedge.quant.emission.weights import add_weight
from motedge.quant.numerics.activation import activation_scale
from motedge.quant.numerics.weight import quantize_weight
from motedge.quant.parameters import SiteParameters
from motedge.quant.schemes import FP8, INT8

SITE = "layers.0.mlp.up_proj"
# Magnitudes of E2M1 by code, from the OCP MX specification
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def write_projection(
    folder: Path,
    weight: Tensor,
    known: SiteParameters,
    dtype: torch.dtype,
    rows: int,
    *,
    emulated: bool = False,
    inspect: bool = True,
) -> Path:
    """Writes and checks the file. x [rows, in] -> y [rows, out]; to inspect, x_held [rows, in] and w_held [in, out]."""
    opset = 21 if emulated else 23
    nodes = NodeList(dtype, opset)
    with open(folder / "weights.data", "wb") as stream:
        data = DataFile(stream, "weights.data")
        w = add_weight(nodes, data, SITE, quantize_weight(SITE, weight, known, dtype), known.scheme, emulated=emulated)
    x, kind = "x", known.scheme.activation
    if kind in (FP8, INT8):
        static = torch.float8_e4m3fn if kind == FP8 else torch.int8
        x = quantize_static(nodes, x, SITE, activation_scale(known, dtype), static)
    elif kind is not None and emulated:
        x = emulate_nvfp4(nodes, x, SITE, activation_scale(known, dtype), len(weight))
    elif kind is not None:
        x = quantize_nvfp4(nodes, x, SITE, activation_scale(known, dtype))
    nodes.nodes.append(helper.make_node("MatMul", [x, w], ["y"], name=f"{SITE}/MatMul"))
    inputs, outputs = weight.shape
    shapes = {"y": [rows, outputs]}
    if inspect:
        nodes.nodes.append(helper.make_node("Identity", [w], ["w_held"], name="w_held"))
        nodes.nodes.append(helper.make_node("Identity", [x], ["x_held"], name="x_held"))
        shapes.update(x_held=[rows, inputs], w_held=[inputs, outputs])
    values = {name: helper.make_tensor_value_info(name, ONNX_TYPES[dtype], s) for name, s in shapes.items()}
    x_in = helper.make_tensor_value_info("x", ONNX_TYPES[dtype], [rows, inputs])
    graph = helper.make_graph(nodes.nodes, "projection", [x_in], list(values.values()), nodes.initializers)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(TRT_DOMAIN, 1)]
    path = folder / "projection.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10 if emulated else 11), str(path))
    check_model(path)
    return path


def run_on_onnxruntime(path: Path, x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name."""
    options = onnxruntime.SessionOptions()
    # Operators one by one, as they stand in the file
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


class TRT_FP4DynamicQuantize(OpRun):
    """TensorRT's operator by the definition of the format; onnx calls an operator by the name of its class."""

    op_domain = TRT_DOMAIN

    def _run(self, x: Any, step: Any, axis: int = -1, block_size: int = 16, scale_type: int = 0) -> tuple[Any, Any]:
        assert (axis, block_size, scale_type) == (-1, 16, TensorProto.FLOAT8E4M3FN)
        blocks = x.astype(np.float64).reshape(*x.shape[:-1], -1, block_size)
        whole = float(step)
        wanted = np.minimum(np.abs(blocks).max(-1) / 6 / whole, 448)
        scales = wanted.astype(ml_dtypes.float8_e4m3fn)
        used = scales.astype(np.float64)[..., None] * whole
        ratio = blocks / np.where(used == 0, 1, used)
        # Of two equally near codes the even one
        code = np.argmin(np.abs(np.abs(ratio)[..., None] - _E2M1) - 1e-9 * (np.arange(8) % 2 == 0), axis=-1)
        held = (np.sign(ratio) * _E2M1[code]).reshape(x.shape)
        return held.astype(ml_dtypes.float4_e2m1fn), scales


def run_on_reference(path: Path, x: np.ndarray[Any, Any]) -> Mapping[str, np.ndarray[Any, Any]]:
    """Outputs by name from onnx's reference evaluator, which knows FLOAT4E2M1."""
    evaluator = ReferenceEvaluator(str(path), new_ops=[TRT_FP4DynamicQuantize])
    return dict(zip(evaluator.output_names, evaluator.run(None, {"x": x}), strict=True))
