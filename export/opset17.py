"""A primitive graph of opset 20 as one of opset 17, for TensorRT 8.6: the same values, in operators that it reads.

Held against onnx-tensorrt's importers of release 8.6-GA (builtin_op_importers.cpp), which know less than the opset:
Shape ignores `start` and `end` and Trilu multiplies its input, so that it takes no bool. An operator that changed
between the two opsets and has no rule here is refused, never passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from motedge.errors import InternalError

OPSET = 17
# onnx 1.12, the first with opset 17 (onnx docs, Versioning.md)
IR_VERSION = 8
# Changed since in the types that they take alone: float 8 and later
_SAME = ("Reshape", "Identity", "Constant", "ConstantOfShape", "Equal")
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")


def lower_to_opset17(model: ir.Model) -> None:
    """Rewrites a model in place; names of weights, inputs and outputs stay, and weights are not read.

    Raises:
        InternalError: an operator that opset 17 has not, or has otherwise.
    """
    graph = model.graph
    newer = graph.opset_imports[""]
    lowering = _Lowering(graph)
    for node in list(graph):
        rule = _RULES.get(node.op_type)
        if rule is not None:
            rule(lowering, node)
        elif node.op_type not in _SAME:
            _require_unchanged(node, newer)
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]
    graph.opset_imports[""] = OPSET
    model.ir_version = IR_VERSION


class _Lowering:
    """The graph, and what rules add to it."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph

    def constant(self, values: int | Sequence[int]) -> ir.Value:
        """An int64 initializer; equal ones are one."""
        array = np.array(values, np.int64)
        name = f"index_{'_'.join(map(str, array.reshape(-1)))}{'' if array.ndim else '_scalar'}"
        return self._initializer(name, array)

    def finite(self, name: str, dtype: Any) -> ir.Value:
        """The lowest finite number of a type, in place of the constant of that name."""
        return self._initializer(f"{name}_finite", np.array(np.finfo(dtype).min, dtype))

    def node(
        self, before: ir.Node, kind: str, inputs: Sequence[ir.Value], suffix: str = "", **numbers: int
    ) -> ir.Value:
        """An operator with one output in front of another, named by its number."""
        number, _, _ = str(before.name).partition("/")
        name = f"{number}/{kind}{suffix}"
        attributes = [ir.AttrInt64(key, value) for key, value in numbers.items()]
        made = ir.Node("", kind, inputs, attributes, outputs=[ir.Value(name=f"{name}:0")], name=name)
        self.graph.insert_before(before, made)
        return made.outputs[0]

    def replace(self, node: ir.Node, value: ir.Value) -> None:
        """Lets the users of a node's output take a value, under the same name, and removes the node."""
        old = node.outputs[0]
        ir.convenience.replace_all_uses_with(old, value)
        self.graph.remove(node, safe=True)
        value.name, value.shape, value.type = old.name, old.shape, old.type

    def remove_dead(self, node: ir.Node | None) -> None:
        """Removes a node whose output nobody takes any more, and then what only it took."""
        if (
            node is None
            or node.graph is None
            or any(output.uses() or output.is_graph_output() for output in node.outputs)
        ):
            return
        sources = [value.producer() for value in node.inputs if value is not None]
        self.graph.remove(node, safe=True)
        for source in dict.fromkeys(sources):
            self.remove_dead(source)

    def _initializer(self, name: str, array: Any) -> ir.Value:
        if name not in self.graph.initializers:
            tensor = ir.tensor(array, name=name)
            self.graph.initializers[name] = ir.Value(
                name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
        return self.graph.initializers[name]


def _reduction(lowering: _Lowering, node: ir.Node) -> None:
    """Axes were an attribute up to opset 17."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = [int(axis) for axis in _constant(node, 1).reshape(-1)]
        node.resize_inputs(1)
        node.attributes["axes"] = ir.AttrInt64s("axes", axes)
    if _number(node, "noop_with_empty_axes", 0) and "axes" not in node.attributes:
        raise _refusal(node, "it reduces nothing")
    node.attributes.pop("noop_with_empty_axes", None)


def _split(lowering: _Lowering, node: ir.Node) -> None:
    """Without sizes, parts are equal; opset 18 wants their number, and lets the last one be smaller."""
    if node.attributes.pop("num_outputs", None) is None:
        return
    size = _dims(node)[_number(node, "axis", 0)]
    if not isinstance(size, int) or size % len(node.outputs):
        raise _refusal(node, f"{size} in {len(node.outputs)} parts")


def _shape(lowering: _Lowering, node: ir.Node) -> None:
    """A range of the shape is gathered from the whole."""
    rank = len(_dims(node))
    edges = (_number(node, "start", 0), _number(node, "end", rank))
    # Negative ones count from the end; beyond it they are clamped
    first, last = (min(max(edge + rank if edge < 0 else edge, 0), rank) for edge in edges)
    if first >= last:
        raise _refusal(node, f"an empty range of {rank} dims")
    if (first, last) == (0, rank):
        node.attributes.clear()
        return
    whole = lowering.node(node, "Shape", [_input(node, 0)], "Whole")
    lowering.replace(node, lowering.node(node, "Gather", [whole, lowering.constant(range(first, last))], axis=0))


def _squeeze(lowering: _Lowering, node: ir.Node) -> None:
    """Which dims are 1 is said: elsewhere the shape may not be known while the graph is read."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return
    dims = _dims(node)
    if not all(isinstance(size, int) for size in dims):
        raise _refusal(node, "of a tensor of unknown shape")
    node.resize_inputs(2)
    node.replace_input_with(1, lowering.constant([axis for axis, size in enumerate(dims) if size == 1]))


def _trilu(lowering: _Lowering, node: ir.Node) -> None:
    """The causal mask, true above the diagonal of a square of trues: rows and columns are compared instead."""
    ones = _input(node, 0).producer()
    causal = (
        ones is not None
        and ones.op_type == "Expand"
        and _constant(ones, 0).dtype == np.bool_
        and bool(_constant(ones, 0).all())
        and len(node.inputs) > 1
        and int(_constant(node, 1)) == 1
        and _number(node, "upper", 1) == 1
    )
    if ones is None or not causal:
        raise _refusal(node, "not a causal mask")
    counters = []
    for axis, what in enumerate(("Rows", "Columns")):
        size = lowering.node(node, "Gather", [_input(ones, 1), lowering.constant(axis)], what, axis=0)
        counter = lowering.node(node, "Range", [lowering.constant(0), size, lowering.constant(1)], what)
        counters.append(lowering.node(node, "Unsqueeze", [counter, lowering.constant([1 - axis])], what))
    lowering.replace(node, lowering.node(node, "Less", counters))
    lowering.remove_dead(ones)


def _where(lowering: _Lowering, node: ir.Node) -> None:
    """Masked scores get the lowest number: a softmax makes 0 of it, too, and no library can make NaN of it."""
    for index in (1, 2):
        value = _input(node, index)
        if value.const_value is not None:
            array = value.const_value.numpy()
            if array.size == 1 and np.isneginf(array).all():
                node.replace_input_with(index, lowering.finite(str(value.name), array.dtype))


def _cast(lowering: _Lowering, node: ir.Node) -> None:
    """How numbers out of range are cast is for float 8 alone."""
    node.attributes.pop("saturate", None)


def _average_pool(lowering: _Lowering, node: ir.Node) -> None:
    """New are dilations, and what a window counts that ceil_mode lets stand out."""
    dilations = node.attributes.pop("dilations", None)
    if _number(node, "ceil_mode", 0) or (dilations is not None and set(dilations.as_ints()) != {1}):
        raise _refusal(node, "ceil_mode or dilations")


def _pad(lowering: _Lowering, node: ir.Node) -> None:
    """New are the mode wrap and the input axes."""
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    if mode == "wrap" or len(node.inputs) > 3:
        raise _refusal(node, f"mode {mode}, {len(node.inputs)} inputs")


def _resize(lowering: _Lowering, node: ir.Node) -> None:
    """New are chosen axes, an aspect ratio to keep, smoothing, and a way to count from the middle."""
    policy = node.attributes.pop("keep_aspect_ratio_policy", None)
    smooth = node.attributes.pop("antialias", None)
    counts = node.attributes.get("coordinate_transformation_mode")
    if (
        "axes" in node.attributes
        or (policy is not None and policy.as_string() != "stretch")
        or (smooth is not None and smooth.as_int())
        or (counts is not None and counts.as_string() == "half_pixel_symmetric")
    ):
        raise _refusal(node, "axes, an aspect ratio, antialias or half_pixel_symmetric")


_RULES: dict[str, Callable[[_Lowering, ir.Node], None]] = {
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Pad": _pad,
    "Resize": _resize,
    "Shape": _shape,
    "Split": _split,
    "Squeeze": _squeeze,
    "Trilu": _trilu,
    "Where": _where,
}


def _require_unchanged(node: ir.Node, newer: int) -> None:
    try:
        versions = [onnx.defs.get_schema(node.op_type, opset, "").since_version for opset in (OPSET, newer)]
    except onnx.defs.SchemaError as error:
        raise _refusal(node, "it is no operator of both opsets") from error
    if versions[0] != versions[1]:
        raise _refusal(node, f"it changed in opset {versions[1]}")


def _refusal(node: ir.Node, got: str) -> InternalError:
    return InternalError(f"operator {node.op_type} ({node.name}) has no form in opset {OPSET}: {got}")


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise _refusal(node, f"it has no input {index}")
    return value


def _constant(node: ir.Node, index: int) -> Any:
    """An input's values as numpy has them."""
    value = _input(node, index)
    if value.const_value is None:
        raise _refusal(node, f"{value.name} is no constant")
    return value.const_value.numpy()


def _dims(node: ir.Node) -> list[Any]:
    """The first input's dims: numbers, or symbols."""
    shape = _input(node, 0).shape
    if shape is None:
        raise _refusal(node, "of a tensor of unknown rank")
    return list(shape)


def _number(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default
