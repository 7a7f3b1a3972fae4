"""Index arithmetic inside a graph, worked out once its inputs' dims are numbers: bounds of slices, targets of reshapes.

onnx's own data propagation stops at some operators (a Reshape of a computed length), and shapes behind them stay open.
"""

from __future__ import annotations

from typing import Any, Optional

# Longer integer constants are no shapes
_LONGEST = 64
_FOLDED = ("Add", "Sub", "Mul", "Div", "Squeeze", "Unsqueeze", "Reshape", "Concat", "Gather", "Slice", "Cast", "Range")


def fold_indices(model: Any) -> int:
    """Replaces operators on known integers by constants, in a model whose inputs' dims are numbers; in place.

    Returns how many were replaced.
    """
    import numpy as np
    import onnx
    from onnx.reference import ReferenceEvaluator

    integers = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    values = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type in integers and tensor.data_location != onnx.TensorProto.EXTERNAL
        if sum(tensor.dims) <= _LONGEST
    }
    shapes = {value.name: _shape(value) for value in (*model.graph.input, *model.graph.value_info)}
    folded = []
    for node in model.graph.node:
        dims = shapes.get(node.input[0]) if node.op_type == "Shape" else None
        if dims is not None:
            given = {a.name: a.i for a in node.attribute}
            values[node.output[0]] = np.array(dims[given.get("start", 0) : given.get("end", len(dims))], np.int64)
        elif node.op_type in _FOLDED and len(node.input) and all(name in values for name in node.input if name):
            feeds = {name: values[name] for name in node.input if name}
            results = ReferenceEvaluator(node).run(None, feeds)
            values.update(zip(node.output, (np.asarray(result) for result in results)))
        else:
            continue
        folded.append(node.output[0])
    made = set(folded)
    kept = [_copy(node) for node in model.graph.node if node.output[0] not in made]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(values[name], name) for name in folded)
    return len(folded)


def _shape(value: Any) -> Optional[list[int]]:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return [dim.dim_value for dim in kind.shape.dim]


def _copy(node: Any) -> Any:
    made = type(node)()
    made.CopyFrom(node)
    return made
