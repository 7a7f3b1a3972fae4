"""Primitive attention -> onnxruntime's own operator, whose kernel never writes out the scores.

softmax(q k^T) v, spelled out as MatMul, Softmax, MatMul, becomes com.microsoft::MultiHeadAttention. With K and V as
three-dimensional [1, M, heads * D] that takes onnxruntime's flash kernel; as four-dimensional it is no faster
(docs/log.md). The operator is not ONNX's, so that this belongs to the engine and not to the exported graph.
"""

from __future__ import annotations

from typing import Any, Optional

_DOMAIN = "com.microsoft"
# [1, heads, S, D] <-> [1, S, heads, D], and the transposition of K
_SWAP, _KEYS = [0, 2, 1, 3], [0, 1, 3, 2]


def fuse_attention(model: Any) -> int:
    """Rewrites every unmasked attention of a primitive fp32 graph, in place.

    The pattern, as this project exports it: MatMul(q, Transpose(k)) -> Softmax(-1) -> MatMul(., v) ->
    Transpose(0, 2, 1, 3) -> Reshape to rows. q is scaled already.

    Args:
        model: an onnx.ModelProto; its weights are not read.

    Returns:
        How many were found.
    """
    from onnx import helper

    graph = model.graph
    lookup = _Lookup(graph)
    replaced: dict[str, list[Any]] = {}
    for node in graph.node:
        found = lookup.attention(node) if node.op_type == "Softmax" else None
        if found is not None:
            for name in found.drop:
                replaced[name] = []
            replaced[found.swap.name] = _operator(found, helper)
    kept = []
    for node in graph.node:
        kept += replaced.get(node.name, [node])
    if replaced:
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)
        graph.initializer.extend(_shapes(lookup, helper))
        if not any(entry.domain == _DOMAIN for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return len(lookup.heads)


class _Attention:
    """One place where the pattern was found."""

    def __init__(self, q: str, k: str, v: str, heads: int, swap: Any, drop: list[str]) -> None:
        self.q, self.k, self.v, self.heads = q, k, v, heads
        # The Transpose behind it, in whose place the operator comes; and the nodes that go
        self.swap, self.drop = swap, drop


class _Lookup:
    """Who makes and who uses each tensor, and the shapes that are known."""

    def __init__(self, graph: Any) -> None:
        self.makers = {name: node for node in graph.node for name in node.output}
        self.users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.output}
        self.shapes = {value.name: _dims(value) for value in (*graph.value_info, *graph.input)}
        self.heads: list[int] = []

    def attention(self, softmax: Any) -> Optional[_Attention]:
        """The attention around a Softmax; None where it is anything else."""
        scores: Any = self.makers.get(softmax.input[0])
        mixed = self.only_user(softmax.output[0])
        if not _is(scores, "MatMul") or not _is(mixed, "MatMul") or _attribute(softmax, "axis") not in (-1, 3):
            return None
        if mixed.input[0] != softmax.output[0] or self.only_user(scores.output[0]) is not softmax:
            return None
        keys: Any = self.makers.get(scores.input[1])
        swap = self.only_user(mixed.output[0])
        if not _is(keys, "Transpose") or _attribute(keys, "perm") != _KEYS:
            return None
        if not _is(swap, "Transpose") or _attribute(swap, "perm") != _SWAP:
            return None
        shape = self.shapes.get(scores.input[0])
        if shape is None or len(shape) != 4 or shape[0] != 1 or not isinstance(shape[1], int) or shape[1] < 2:
            return None
        # The scores' transposed keys may have another user, and stay for that one
        drop = [scores.name, softmax.name, mixed.name]
        if self.only_user(keys.output[0]) is scores:
            drop.append(keys.name)
        self.heads.append(shape[1])
        return _Attention(scores.input[0], keys.input[0], mixed.input[1], shape[1], swap, drop)

    def only_user(self, name: str) -> Any:
        """The one node that uses a tensor; None where there are several, or it is an output of the graph."""
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name not in self.outputs else None


def _operator(found: _Attention, helper: Any) -> list[Any]:
    """q, k, v [1, heads, S, D] -> [1, S, heads * D] each, the operator, and back to what the Transpose gave."""
    stem = found.swap.name
    nodes, flat = [], []
    for letter, name in (("q", found.q), ("k", found.k), ("v", found.v)):
        turned, rows = f"{stem}.{letter}_turned", f"{stem}.{letter}_rows"
        nodes.append(helper.make_node("Transpose", [name], [turned], f"{stem}/{letter}/Transpose", perm=_SWAP))
        nodes.append(helper.make_node("Reshape", [turned, _rows_shape()], [rows], f"{stem}/{letter}/Reshape"))
        flat.append(rows)
    mixed = f"{stem}.mixed"
    nodes.append(
        helper.make_node(
            "MultiHeadAttention",
            flat,
            [mixed],
            f"{stem}/MultiHeadAttention",
            domain=_DOMAIN,
            num_heads=found.heads,
            scale=1.0,
        )
    )
    nodes.append(
        helper.make_node("Reshape", [mixed, _heads_shape(found.heads)], [found.swap.output[0]], f"{stem}/Reshape")
    )
    return nodes


def _rows_shape() -> str:
    return "motedge.attention.rows"


def _heads_shape(heads: int) -> str:
    return f"motedge.attention.heads{heads}"


def _shapes(lookup: _Lookup, helper: Any) -> list[Any]:
    """The Reshapes' constants. 0 copies a dimension, -1 takes the rest; merging the last two needs the rank alone."""
    from onnx import TensorProto

    made = [helper.make_tensor(_rows_shape(), TensorProto.INT64, [3], [0, 0, -1])]
    for heads in sorted(set(lookup.heads)):
        made.append(helper.make_tensor(_heads_shape(heads), TensorProto.INT64, [4], [0, 0, heads, -1]))
    return made


def _is(node: Any, kind: str) -> bool:
    return node is not None and node.op_type == kind and node.domain in ("", "ai.onnx")


def _attribute(node: Any, name: str) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def _dims(value: Any) -> list[Any]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
