"""Operators around one MatMul: smoothing, quantization of the activation, dequantization of the weight.

Every function appends nodes to a `NodeList` and returns the name of the value that it made. Scales are in the graph's
own type, as strongly typed TensorRT wants them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from motedge.export.weights import as_bytes
from motedge.quant.emission.data_file import ONNX_TYPES
from motedge.quant.numerics.formats import E2M1_MAX, E4M3_MAX
from motedge.quant.numerics.nvfp4 import BLOCK, ZERO_BLOCK

# TensorRT's own operators; onnx knows nothing of this domain
TRT_DOMAIN, TRT_VERSION = "trt", 1
# QuantizeLinear says since this opset in which type it divides; before, in the scale's
_OPSET_PRECISION = 23


@dataclass
class NodeList:
    """Nodes and small initializers under construction."""

    # The graph's floating type, in which scales are kept
    dtype: torch.dtype
    # Of ONNX's own operators
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    _constants: dict[str, str] = field(default_factory=dict)

    def add(self, op_type: str, inputs: list[str], name: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """Appends an operator called `name`; returns the names of its outputs."""
        made = [f"{name}:{index}" for index in range(outputs)]
        domain = TRT_DOMAIN if op_type.startswith("TRT_") else ""
        self.nodes.append(helper.make_node(op_type, inputs, made, name=name, domain=domain, **attributes))
        return made

    def one(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """`add` for an operator with one output."""
        return self.add(op_type, inputs, name, **attributes)[0]

    def value(self, name: str, value: Tensor) -> str:
        """A small initializer, kept inside the ONNX file."""
        data = bytes(as_bytes(value.contiguous().reshape(-1)))
        self.initializers.append(
            TensorProto(name=name, data_type=ONNX_TYPES[value.dtype], dims=value.shape, raw_data=data)
        )
        return name

    def scale(self, name: str, value: float) -> str:
        """A scalar scale in the graph's type."""
        return self.value(name, torch.tensor(value, dtype=self.dtype))

    def constant(self, key: str, value: Tensor | np.ndarray[Any, Any]) -> str:
        """A constant that all sites share."""
        if key not in self._constants:
            tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            if tensor.dtype == torch.int64:
                proto = helper.make_tensor(f"quant_{key}", TensorProto.INT64, tensor.shape, tensor.tolist())
                self.initializers.append(proto)
                self._constants[key] = proto.name
            else:
                self._constants[key] = self.value(f"quant_{key}", tensor)
        return self._constants[key]


def quantize_static(nodes: NodeList, x: str, site: str, scale: float, kind: torch.dtype) -> str:
    """x through QuantizeLinear and DequantizeLinear with one scale; `kind`: float8_e4m3fn or int8.

    Where the opset can say so, x / scale is an fp32 quotient: rounded to bf16 before it is rounded to a code, normally
    distributed x takes another code in 2 % (E4M3) or 7 % (int8) of the values, a relative L2 of 1.3 % or 1 %.
    """
    zero = nodes.constant("zero_" + str(kind).rpartition(".")[2], torch.zeros((), dtype=torch.int8).view(kind))
    step = nodes.scale(f"{site}.input_scale", scale)
    division = {"precision": TensorProto.FLOAT} if nodes.opset >= _OPSET_PRECISION else {}
    codes = nodes.one("QuantizeLinear", [x, step, zero], f"{site}/QuantizeLinear", **division)
    return nodes.one("DequantizeLinear", [codes, step, zero], f"{site}/DequantizeLinear")


def quantize_nvfp4(nodes: NodeList, x: str, site: str, scale: float) -> str:
    """x through TensorRT's dynamic NVFP4 quantization, E4M3 scale a block of 16, and back."""
    step = nodes.scale(f"{site}.input_scale", scale)
    codes, scales = nodes.add(
        "TRT_FP4DynamicQuantize",
        [x, step],
        f"{site}/FP4DynamicQuantize",
        outputs=2,
        axis=-1,
        block_size=BLOCK,
        scale_type=TensorProto.FLOAT8E4M3FN,
    )
    steps = nodes.one("DequantizeLinear", [scales, step], f"{site}/ScaleDequantize")
    return nodes.one("DequantizeLinear", [codes, steps], f"{site}/DequantizeLinear", axis=-1, block_size=BLOCK)


def emulate_nvfp4(nodes: NodeList, x: str, site: str, scale: float, width: int) -> str:
    """The arithmetic of motedge.quant.numerics.nvfp4.fake_quantize_dynamic in standard operators, fp32.

    x [N, width] -> [N, width].
    """

    def number(value: float) -> str:
        return nodes.constant(f"fp32_{value:g}", torch.tensor(value, dtype=torch.float32))

    def step(op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        return nodes.one(op_type, inputs, f"{site}/nvfp4_{name}", **attributes)

    def rounded_to(unit: float, value: str, name: str) -> str:
        count = step("Round", [step("Mul", [value, number(1 / unit)], f"{name}_exact")], f"{name}_count")
        return step("Mul", [count, number(unit)], f"{name}_value")

    whole = nodes.scale(f"{site}.input_scale", scale)
    blocked = nodes.constant("nvfp4_blocked", np.array([0, -1, BLOCK], np.int64))
    blocks = step("Reshape", [x, blocked], "blocks")
    magnitude = step("Abs", [blocks], "magnitude")
    largest = step("ReduceMax", [magnitude, nodes.constant("last_axis", np.array([-1], np.int64))], "largest")
    wanted = step("Div", [largest, nodes.scale(f"{site}.input_range", E2M1_MAX * scale)], "wanted")
    bounded = step("Min", [wanted, number(E4M3_MAX)], "bounded")
    codes = step("Cast", [bounded], "scale_codes", to=TensorProto.FLOAT8E4M3FN)
    scales = step("Mul", [step("Cast", [codes], "scale_values", to=TensorProto.FLOAT), whole], "scales")
    live = step("GreaterOrEqual", [scales, number(ZERO_BLOCK)], "live")
    safe = step("Where", [live, scales, number(1.0)], "safe")
    ratio = step("Min", [step("Div", [magnitude, safe], "quotient"), number(E2M1_MAX)], "ratio")
    fine = rounded_to(0.5, ratio, "halves")
    whole_steps = step("Round", [ratio], "ones")
    coarse = rounded_to(2.0, ratio, "twos")
    upper = step("Where", [step("LessOrEqual", [ratio, number(3.5)], "middle"), whole_steps, coarse], "upper")
    rounded = step("Where", [step("LessOrEqual", [ratio, number(1.75)], "low"), fine, upper], "rounded")
    signed = step("Mul", [rounded, step("Sign", [blocks], "polarity")], "signed")
    flat = nodes.constant(f"flat_{width}", np.array([-1, width], np.int64))
    return step("Reshape", [step("Mul", [signed, safe], "values"), flat], "flat")
