"""ONNX file -> `Graph`: dynamic dims fixed, every shape inferred, external data not touched."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motedge.bundle import Bundle
from motedge.errors import BundleError, MissingPackageError
from motedge.targets.graph.index_values import fold_indices
from motedge.targets.graph.model import Graph, Node, Tensor

# TensorRT's own operator, of which onnx knows nothing: x, scale -> codes, a scale a block
FP4_QUANTIZE = "TRT_FP4DynamicQuantize"
# Names of TensorProto's types, lower case, where ours differ
_TYPES = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "double": "fp64",
    "float8e4m3fn": "fp8",
    "float4e2m1": "nvfp4",
}


def read_graph(bundle: Bundle, graph: str, variant: str, sizes: Mapping[str, int]) -> Graph:
    """One variant of a graph with its dims fixed.

    Args:
        bundle: the bundle; sizes of the variant's files are compared with the manifest, their content is not read.
        graph: "gen_step" and so on.
        variant: its id.
        sizes: a number for every letter of the contract, see `motedge.targets.graph.sizes`.

    Raises:
        BundleError: the file is damaged, or its tensors are not as the contract says.
        ContractError: a letter without a number, or one outside the profile.
        MissingPackageError: the onnx package is not installed.
    """
    path, contract = bundle.check_variant(graph, variant, content=False), bundle.contract(graph)
    contract.check_dims(sizes)
    entry = bundle.variant(graph, variant)
    shapes = {spec.name: spec.shape(sizes) for spec in contract.inputs}
    return parse_graph(graph, entry.dtype, path, shapes)


def parse_graph(name: str, dtype: str, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """An ONNX file as a `Graph`.

    Args:
        name: of the graph, for messages.
        dtype: its own floating type.
        path: the ONNX file.
        shapes: of its inputs, by name.
    """
    model = _load(path)
    _fix_inputs(model, name, shapes)
    inferred = _infer(model, path)
    found = (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input)
    tensors = {value.name: _tensor(value) for value in found if _has_numbers(value)}
    # Initializers, and integers that were worked out
    tensors.update({value.name: _initializer(value) for value in inferred.graph.initializer})
    for node in model.graph.node:
        if node.op_type == FP4_QUANTIZE and node.input[0] in tensors:
            tensors.update(_fp4_outputs(node, tensors[node.input[0]]))
    _require_known(model, tensors, path)
    initializers = frozenset(value.name for value in model.graph.initializer)
    return Graph(
        name=name,
        dtype=dtype,
        nodes=tuple(_node(node) for node in model.graph.node),
        tensors=tensors,
        inputs=tuple(value.name for value in model.graph.input if value.name not in initializers),
        outputs=tuple(value.name for value in model.graph.output),
        initializers=initializers,
    )


def _load(path: Path) -> Any:
    try:
        import onnx

        # onnx brings it; it has no types
        decode_error: Any = importlib.import_module("google.protobuf.message").DecodeError
    except ImportError as error:
        raise MissingPackageError("onnx", extra="export", purpose="to read graphs for a plan") from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (decode_error, ValueError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    if not model.graph.node or not model.graph.output:
        raise _damaged(path, "a model without operators or outputs")
    return model


def _fix_inputs(model: Any, name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    given = {value.name for value in model.graph.input}
    if given != set(shapes):
        raise BundleError(
            f"graph {name!r} is not as its contract says: inputs",
            expected=", ".join(sorted(shapes)),
            got=", ".join(sorted(given)),
            fix="export again from the checkpoint",
        )
    for value in model.graph.input:
        dims, shape = value.type.tensor_type.shape.dim, shapes[value.name]
        fits = len(dims) == len(shape) and all(d.dim_param or d.dim_value == size for d, size in zip(dims, shape))
        if not fits:
            raise BundleError(
                f"graph {name!r} is not as its contract says: shape of {value.name!r}",
                expected=list(shape),
                got=[d.dim_param or d.dim_value for d in dims],
                fix="export again from the checkpoint",
            )
        for dim, size in zip(dims, shape):
            dim.dim_value = size


def _infer(model: Any, path: Path) -> Any:
    """Shapes of every tensor, from the inputs alone: what the exporter noted holds letters."""
    import onnx

    known = onnx.ModelProto()
    known.CopyFrom(model)
    del known.graph.value_info[:]
    for value in known.graph.output:
        value.type.tensor_type.ClearField("shape")
    _bypass_fp4(known)
    try:
        # In turn for the shapes that index arithmetic asks for and with its results, which a layer's own may hang on
        known.graph.value_info.extend(onnx.shape_inference.infer_shapes(known).graph.value_info)
        while fold_indices(known):
            del known.graph.value_info[:]
            known.graph.value_info.extend(onnx.shape_inference.infer_shapes(known).graph.value_info)
        del known.graph.value_info[:]
        return onnx.shape_inference.infer_shapes(known, data_prop=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise _damaged(path, str(error)) from error


def _bypass_fp4(model: Any) -> None:
    """Quantizing to FP4 and back keeps the shape, so for inference both become one identity."""
    made = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == FP4_QUANTIZE}
    beside = {node.output[1] for node in model.graph.node if node.op_type == FP4_QUANTIZE}
    kept = []
    for node in model.graph.node:
        source = made.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is not None:
            output = node.output[0]
            node.Clear()
            node.op_type = "Identity"
            node.input.append(source)
            node.output.append(output)
        elif node.op_type == FP4_QUANTIZE or (node.input and node.input[0] in beside):
            continue
        kept.append(node)
    if made:
        nodes = [_copy(node) for node in kept]
        del model.graph.node[:]
        model.graph.node.extend(nodes)


def _copy(node: Any) -> Any:
    made = type(node)()
    made.CopyFrom(node)
    return made


def _fp4_outputs(node: Any, x: Tensor) -> dict[str, Tensor]:
    """Codes, a scale for every block of 16 in E4M3, and what that scale becomes when it is dequantized."""
    codes, scales = node.output
    blocks = (*x.shape[:-1], -(-x.shape[-1] // 16))
    beside = node.name.replace("/FP4DynamicQuantize", "/ScaleDequantize") + ":0"
    return {
        codes: Tensor(codes, x.shape, "nvfp4"),
        scales: Tensor(scales, blocks, "fp8"),
        beside: Tensor(beside, blocks, x.type),
    }


def _require_known(model: Any, tensors: Mapping[str, Tensor], path: Path) -> None:
    for node in model.graph.node:
        for name in (*node.input, *node.output):
            if name and name not in tensors:
                raise BundleError(
                    f"the shape of tensor {name!r} in {path.name} can't be worked out",
                    got=f"operator {node.op_type} {node.name!r}",
                    why="without it there is no telling how much memory the graph takes",
                    fix="export again from the checkpoint, or name the operator in an issue",
                )


def _node(node: Any) -> Node:
    import onnx

    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return Node(node.name or node.output[0], node.op_type, tuple(node.input), tuple(node.output), attributes)


def _has_numbers(value: Any) -> bool:
    kind = value.type.tensor_type
    return kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)


def _tensor(value: Any) -> Tensor:
    kind = value.type.tensor_type
    return Tensor(value.name, tuple(dim.dim_value for dim in kind.shape.dim), _type(kind.elem_type))


def _initializer(value: Any) -> Tensor:
    return Tensor(value.name, tuple(value.dims), _type(value.data_type))


def _type(number: int) -> str:
    import onnx

    name = str(onnx.TensorProto.DataType.Name(number)).lower()
    return _TYPES.get(name, name)


def _damaged(path: Path, got: str) -> BundleError:
    return BundleError(
        f"{path.name} can't be read as a graph",
        got=got.strip().split("\n")[0][:300],
        why="the file is damaged, or not an ONNX model",
        fix="copy the bundle again, or export again",
    )
