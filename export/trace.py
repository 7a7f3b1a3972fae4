"""A torch module on the meta device -> an ONNX graph with named, empty weights. No weight is ever materialised.

torch.export runs over fake tensors; during ONNX optimization the weights are parked as graph inputs, because constant
folding would otherwise ask for their bytes.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from motedge.bundle import Contract
from motedge.errors import InternalError
from motedge.export.weights import DTYPES, constants_of

IR_VERSION = 10  # the newest that onnxruntime 1.19 and TensorRT 10.3 read
_TYPES = {"fp32": torch.float32, "int64": torch.int64}


def trace(module: nn.Module, contract: Contract, *, dtype: str, opset: int) -> ir.Model:
    """Exports a module.

    Args:
        module: on the meta device; its forward takes the contract's inputs by name and returns its outputs in order.
        contract: names, dims and profile of the tensors.
        dtype: the variant's floating type: "fp32", "fp16" or "bf16".
        opset: the ONNX opset of the result.

    Returns:
        The graph: inputs, outputs and dims named as in the contract; every weight an initializer without a value;
        nodes named after the weight that they apply; no metadata of the exporting machine.
    """
    constants = constants_of(module)
    with _quiet(), FakeTensorMode():
        names = _fake_parameters(module)
        arguments, dynamic = _fake_inputs(contract, DTYPES[dtype])
        exported = torch.export.export(
            module,
            (),
            kwargs=arguments,
            dynamic_shapes=dynamic,
            strict=False,
            # N = T * tokens + A is a relation of three inputs; it is checked at run time by the operators themselves
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(exported, dynamo=True, opset_version=opset, optimize=False, verbose=False)
        if program is None:
            raise InternalError("torch.onnx.export returned nothing")
        graph = program.model.graph
        parked = [graph.initializers.pop(name) for name in names]
        for value in parked:
            value.const_value = None
        graph.inputs.extend(parked)
        program.optimize()
        graph = program.model.graph
        del graph.inputs[len(contract.inputs) :]
        for value in parked:
            graph.initializers[value.name or ""] = value
    for name, tensor in constants.items():
        graph.initializers[name].const_value = ir.tensor(tensor.numpy(), name=name)
    model = program.model
    _name_tensors(model.graph, contract)
    _name_nodes(model.graph)
    _clear_metadata(model)
    return model


def _fake_parameters(module: nn.Module) -> list[str]:
    for owner in module.modules():
        for name, value in list(owner.named_parameters(recurse=False)):
            empty = torch.empty(value.shape, dtype=value.dtype, device="cpu")
            setattr(owner, name, nn.Parameter(empty, requires_grad=False))
    return [name for name, _ in module.named_parameters()]


def _fake_inputs(
    contract: Contract, dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], dict[str, dict[int, torch.export.Dim] | None]]:
    optimum = contract.optimum()
    dims = {letter: torch.export.Dim(letter, min=low, max=high) for letter, (low, _, high) in contract.profile.items()}
    arguments, dynamic = {}, {}
    for spec in contract.inputs:
        arguments[spec.name] = torch.empty(spec.shape(optimum), dtype=_TYPES.get(spec.dtype, dtype))
        dynamic[spec.name] = {i: dims[d] for i, d in enumerate(spec.dims) if d in dims} or None
    return arguments, dynamic


def _name_tensors(graph: ir.Graph, contract: Contract) -> None:
    inputs = [value.name for value in graph.inputs]
    expected = [spec.name for spec in contract.inputs]
    if inputs != expected or len(graph.outputs) != len(contract.outputs):
        raise InternalError(f"the graph's inputs {inputs} are not the contract's {expected}")
    for value, spec in zip((*graph.inputs, *graph.outputs), (*contract.inputs, *contract.outputs), strict=True):
        value.name = spec.name
        value.shape = ir.Shape([contract.sizes.get(d, d) if isinstance(d, str) else d for d in spec.dims])


def _name_nodes(graph: ir.Graph) -> None:
    """Unique names, none a prefix of another: quantizers match nodes by prefix."""
    for index, node in enumerate(graph):
        weight = next((v.name for v in node.inputs if v is not None and v.name in graph.initializers), None)
        owner = weight.rpartition(".")[0] if weight and "." in weight else ""
        if owner and node.op_type in ("MatMul", "Conv", "RMSNormalization"):
            node.name = f"{owner}/{node.op_type}"
        else:
            node.name = f"n{index:05d}/{node.op_type}"


def _clear_metadata(model: ir.Model) -> None:
    graph = model.graph
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    graph.metadata_props.clear()
    graph.name, graph.doc_string, model.doc_string = "motedge", None, None
    model.producer_name, model.producer_version, model.ir_version = "motedge", None, IR_VERSION


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notes on optional packages, deprecations and passes, which say nothing to our users."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
