"""Puts a graph together from traced parts. A tower's layers are equal, so one is traced and repeated.

Tracing costs seconds a layer where shapes are symbolic; copying its nodes costs nothing. Export time no longer grows
with depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import torch

from motedge.bundle import Contract
from motedge.errors import InternalError
from motedge.export.weights import DTYPE_NAMES, checkpoint_key

IR_VERSION = 10  # the newest that onnxruntime 1.19 and TensorRT 10.3 read
IR_TYPES = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}


class Assembly:
    """A graph under construction, with the contract's inputs."""

    def __init__(self, contract: Contract, *, dtype: str, opset: int) -> None:
        self._contract, self._opset = contract, opset
        self._types = {"fp32": ir.DataType.FLOAT, "int64": ir.DataType.INT64, "graph": IR_TYPES[dtype]}
        self.inputs = {
            spec.name: ir.Value(
                name=spec.name, shape=self._shape(spec.dims), type=ir.TensorType(self._types[spec.dtype])
            )
            for spec in contract.inputs
        }
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._copies = 0

    def add(self, part: ir.Graph, inputs: Sequence[ir.Value], prefix: str = "") -> list[ir.Value]:
        """Copies a traced part into the graph.

        Args:
            part: the part; it may be added several times.
            inputs: values of this graph for the part's inputs, in order.
            prefix: goes before the names of the part's weights: "layers.3." for a layer.

        Returns:
            The part's outputs as values of this graph.
        """
        scope, self._copies = f"p{self._copies}", self._copies + 1
        values = dict(zip(part.inputs, inputs, strict=True))
        for name, value in part.initializers.items():
            values[value] = self._initializer(part, checkpoint_key(prefix + name), value)
        for node in part:
            if node.op_type == "Identity" and node.inputs[0] is not None:
                values[node.outputs[0]] = values[node.inputs[0]]
                continue
            copies = [ir.Value(name=f"{scope}.{o.name}", shape=o.shape, type=o.type) for o in node.outputs]
            values.update(zip(node.outputs, copies, strict=True))
            sources = [value if value is None else values[value] for value in node.inputs]
            self._nodes.append(ir.Node(node.domain, node.op_type, sources, node.attributes, outputs=copies))
        return [values[output] for output in part.outputs]

    def node(self, op_type: str, inputs: Sequence[ir.Value], outputs: int = 1, **attributes: int) -> list[ir.Value]:
        """Adds one operator of the default domain with whole-number attributes; returns its outputs."""
        made = [ir.AttrInt64(name, value) for name, value in attributes.items()]
        scope, self._copies = f"p{self._copies}", self._copies + 1
        values = [ir.Value(name=f"{scope}.{op_type.lower()}_{i}") for i in range(outputs)]
        self._nodes.append(ir.Node("", op_type, inputs, made, outputs=values))
        return values

    def finish(self, outputs: Sequence[ir.Value]) -> ir.Model:
        """The model, with outputs named as in the contract and nodes named after the weight that they apply."""
        for value, spec in zip(outputs, self._contract.outputs, strict=True):
            value.name, value.shape = spec.name, self._shape(spec.dims)
            value.type = ir.TensorType(self._types[spec.dtype])
        graph = ir.Graph(
            list(self.inputs.values()),
            outputs,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports={"": self._opset},
            name=self._contract.graph,
        )
        _name_nodes(graph)
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="motedge")

    def set_constants(self, constants: dict[str, torch.Tensor]) -> None:
        """Gives values to initializers that do not come from weight files."""
        for name, value in constants.items():
            if name not in self._initializers:
                raise InternalError(f"the graph has no constant {name}")
            tensor = ir.tensor(value.numpy(), dtype=IR_TYPES[DTYPE_NAMES[value.dtype]], name=name)
            self._initializers[name].const_value = tensor

    def _initializer(self, part: ir.Graph, name: str, source: ir.Value) -> ir.Value:
        if source.const_value is not None:
            # A constant of the code: copies of one part share it
            name = f"constant_{id(part):x}_{source.name}"
        if name not in self._initializers:
            self._initializers[name] = ir.Value(
                name=name, shape=source.shape, type=source.type, const_value=source.const_value
            )
        return self._initializers[name]

    def _shape(self, dims: Sequence[str | int]) -> ir.Shape:
        return ir.Shape([self._contract.sizes.get(d, d) if isinstance(d, str) else d for d in dims])


def _name_nodes(graph: ir.Graph) -> None:
    """Unique names, none a prefix of another: quantizers match nodes by prefix. Constants get short names."""
    constants = [value for value in graph.initializers.values() if str(value.name).startswith("constant_")]
    for index, value in enumerate(constants):
        value.name = f"constant_{index}"
    taken: set[str] = set()
    for index, node in enumerate(graph):
        weights = [v.name for v in node.inputs if v is not None and v.name in graph.initializers]
        owner = next((w.rpartition(".")[0] for w in weights if w and not w.startswith("constant_")), "")
        named = f"{owner}/{node.op_type}" if owner and node.op_type in ("MatMul", "Conv", "RMSNormalization") else ""
        # A weight that is applied twice names the first node alone: onnxruntime takes no name twice
        node.name = named if named and named not in taken else f"n{index:05d}/{node.op_type}"
        taken.add(node.name)
