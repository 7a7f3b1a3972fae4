"""The graph `solver_step`: guidance, UniPC and the clean positions of one step, so that a tick never leaves the device.

It has no weights, and works in fp32 whatever the variants of the other graphs, since the state is kept in fp32. The
reference is numpy's `motedge.runtime.unipc.UniPC`, with `combine` before it and `GenState.hold_clean` after it. The
order of operations is theirs, so that an engine that rounds after each of them agrees bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from motedge.bundle import Contract, TensorSpec
from motedge.export.contracts import SOLVER_COEFFICIENTS
from motedge.files import atomic_open

GRAPH = "solver_step"
# The oldest library that runs this (TensorRT 8.6) reads opset 17; the newest does too
OPSET, IR_VERSION = 17, 8
VARIANT, DIALECT, DTYPE = "primitive-fp32", "primitive", "fp32"
_CORRECT, _PREDICT = SOLVER_COEFFICIENTS[2:7], SOLVER_COEFFICIENTS[7:]


def solver_model(contract: Contract) -> onnx.ModelProto:
    """The ONNX model of the contract of `solver_step`."""
    nodes = _Nodes()
    nodes.add("Split", ["coefficients"], SOLVER_COEFFICIENTS, axis=0)
    for name, row in (("m1", "row_0"), ("m2", "row_1")):
        nodes.add("Gather", ["history", row], [name], axis=0)
    # v_uncond + scale * (v_cond - v_uncond): exactly v_cond where that is bound to both
    nodes.add("Sub", ["v_cond", "v_uncond"], ["difference"])
    nodes.add("Mul", ["difference", "guidance"], ["guided"])
    nodes.add("Add", ["guided", "v_uncond"], ["velocity"])
    nodes.add("Mul", ["velocity", "sigma"], ["moved"])
    nodes.add("Sub", ["state", "moved"], ["m0"])
    nodes.combine("next_corrected", _CORRECT, ("state", "corrected", "m0", "m1", "m2"))
    nodes.combine("predicted", _PREDICT, ("next_corrected", "m0", "m1"))
    # Chosen, not multiplied: clean positions get exactly their values
    nodes.add("Greater", ["noisy", "half"], ["is_noisy"])
    nodes.add("Where", ["is_noisy", "predicted", "clean"], ["next_state"])
    for name in ("m0", "m1"):
        nodes.add("Unsqueeze", [name, "axis_0"], [f"{name}_row"])
    nodes.add("Concat", ["m0_row", "m1_row"], ["next_history"], axis=0)
    for name in ("cond", "uncond"):
        nodes.add("ReduceL1", [f"v_{name}"], [f"{name}_magnitude"], axes=[0], keepdims=1)
    nodes.add("Concat", ["cond_magnitude", "uncond_magnitude"], ["magnitude"], axis=0)
    graph = helper.make_graph(
        nodes.made,
        contract.graph,
        [_value(spec) for spec in contract.inputs],
        [_value(spec) for spec in contract.outputs],
        [
            helper.make_tensor("row_0", onnx.TensorProto.INT64, [], [0]),
            helper.make_tensor("row_1", onnx.TensorProto.INT64, [], [1]),
            helper.make_tensor("axis_0", onnx.TensorProto.INT64, [1], [0]),
            helper.make_tensor("half", onnx.TensorProto.FLOAT, [1], [0.5]),
        ],
    )
    imports = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="motedge")


def write_solver(contract: Contract, target: Path, metadata: Mapping[str, str]) -> None:
    """Writes the graph atomically."""
    model = solver_model(contract)
    helper.set_model_props(model, dict(metadata))
    with atomic_open(target) as stream:
        stream.write(model.SerializeToString(deterministic=True))


class _Nodes:
    """Nodes in order, named by number and operator as in the other graphs."""

    def __init__(self) -> None:
        self.made: list[onnx.NodeProto] = []

    def add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        name = f"n{len(self.made):05d}/{kind}"
        self.made.append(helper.make_node(kind, list(inputs), list(outputs), name=name, **attributes))

    def combine(self, out: str, factors: Sequence[str], terms: Sequence[str]) -> None:
        """The sum of factor * term, from the left, as numpy's solver adds it."""
        total = ""
        for index, (factor, term) in enumerate(zip(factors, terms, strict=True)):
            product = f"{factor}.{term}"
            self.add("Mul", [term, factor], [product])
            if total:
                last = index == len(terms) - 1
                total, before = out if last else f"{out}.{index}", total
                self.add("Add", [before, product], [total])
            else:
                total = product


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, onnx.TensorProto.FLOAT, list(spec.dims))
