"""The weight of one site as initializers of a quantized graph, and its dequantization."""

from __future__ import annotations

import torch
from onnx import TensorProto

from motedge.quant.emission.data_file import DataFile
from motedge.quant.emission.nodes import NodeList
from motedge.quant.numerics.formats import e2m1_values
from motedge.quant.numerics.nvfp4 import BLOCK
from motedge.quant.numerics.weight import QuantizedWeight
from motedge.quant.schemes import FP8, INT4, INT8, Scheme


def add_weight(
    nodes: NodeList, data: DataFile, site: str, weight: QuantizedWeight, scheme: Scheme, *, emulated: bool
) -> str:
    """Writes codes and scales, and appends the nodes that turn them into the weight.

    Args:
        nodes: the graph's nodes so far.
        data: where large tensors go.
        site: the projection; its initializers are `<site>.weight`, `.weight_scale` and `.weight_scale_2`, as NVIDIA's
            quantized checkpoints name them.
        weight: codes and scales.
        scheme: its scheme.
        emulated: NVFP4 in standard operators, for onnxruntime.

    Returns:
        The name of the dequantized weight [in, out], of the graph's type.
    """
    name, dequantize = f"{site}.weight", f"{site}/WeightDequantize"
    if scheme.weight in (FP8, INT8):
        codes = data.add(name, weight.codes)
        nodes.initializers.append(codes)
        if scheme.weight == FP8:
            scale = nodes.scale(f"{name}_scale", float(weight.scale))
            return nodes.one("DequantizeLinear", [name, scale], dequantize)
        nodes.initializers.append(data.add(f"{name}_scale", weight.scale.to(nodes.dtype)))
        return nodes.one("DequantizeLinear", [name, f"{name}_scale"], dequantize, axis=1)
    if scheme.weight == INT4:
        nodes.initializers.append(data.add(name, weight.codes, TensorProto.INT4))
        nodes.initializers.append(data.add(f"{name}_scale", weight.scale.to(nodes.dtype)))
        block = scheme.block
        return nodes.one("DequantizeLinear", [name, f"{name}_scale"], dequantize, axis=0, block_size=block)
    whole = weight.global_scale or 1.0
    if emulated:
        # Twice the value is a whole number up to 12, which INT8 holds
        nodes.initializers.append(data.add(name, (2 * e2m1_values(weight.codes)).to(torch.int8)))
        nodes.initializers.append(data.add(f"{name}_scale", weight.scale.float() * whole / 2))
        return nodes.one("DequantizeLinear", [name, f"{name}_scale"], dequantize, axis=0, block_size=BLOCK)
    nodes.initializers.append(data.add(name, weight.codes, TensorProto.FLOAT4E2M1))
    nodes.initializers.append(data.add(f"{name}_scale", weight.scale))
    step = nodes.scale(f"{name}_scale_2", whole)
    scales = nodes.one("DequantizeLinear", [f"{name}_scale", step], f"{site}/WeightScaleDequantize")
    return nodes.one("DequantizeLinear", [name, scales], dequantize, axis=0, block_size=BLOCK)
