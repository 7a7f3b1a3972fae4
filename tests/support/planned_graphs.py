"""Small ONNX graphs written and read back for planning; each with sizes that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from motedge.targets.graph.kernels import Kernel
from motedge.targets.graph.model import Graph
from motedge.targets.graph.read import parse_graph

FP16, FP32, FP8, INT8, INT4, FP4 = (
    TensorProto.FLOAT16,
    TensorProto.FLOAT,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.INT8,
    TensorProto.INT4,
    TensorProto.FLOAT4E2M1,
)
Weights = Mapping[str, tuple[int, Sequence[int]]]


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    weights: Weights | None = None,
    *,
    indices: Mapping[str, Sequence[int] | int] | None = None,
    kind: int = FP16,
    opset: int = 23,
) -> Path:
    """Writes a model whose weights have no content, as if it lay in an external file that is not there."""
    initializers = []
    for name, (data_type, dims) in (weights or {}).items():
        tensor = TensorProto(name=name, data_type=data_type, dims=dims, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="absent.data")
        initializers.append(tensor)
    for name, values in (indices or {}).items():
        dims = [] if isinstance(values, int) else [len(values)]
        initializers.append(helper.make_tensor(name, TensorProto.INT64, dims, [values] if not dims else list(values)))
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, list(dims)) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        initializers,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("trt", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString())
    return path


def read(path: Path, shapes: Mapping[str, tuple[int, ...]], *, name: str = "gen_step", dtype: str = "fp16") -> Graph:
    """The model at one size."""
    return parse_graph(name, dtype, path, shapes)


def node(op: str, inputs: str, outputs: str, name: str | None = None, **attributes: object) -> onnx.NodeProto:
    """An operator; names separated by blanks."""
    domain = "trt" if op.startswith("TRT_") else ""
    return helper.make_node(
        op, inputs.split(), outputs.split(), name=name or outputs.split()[0], domain=domain, **attributes
    )


def operators(kernels: Sequence[Kernel]) -> list[str]:
    """Names of each kernel's operators, in order of the kernels."""
    return ["+".join(entry.op for entry in kernel.nodes) for kernel in kernels]
