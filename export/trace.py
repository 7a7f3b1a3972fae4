"""A torch module on the meta device -> an ONNX graph with named, empty weights. No weight is ever materialised.

torch.export runs over fake tensors; during ONNX optimization the weights are parked as graph inputs, because constant
folding would otherwise ask for their bytes.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from motedge.bundle import TensorSpec
from motedge.errors import InternalError
from motedge.export.weights import DTYPES

Sizes = Mapping[str, int]
Profile = Mapping[str, tuple[int, int, int]]
_TYPES = {"fp32": torch.float32, "int64": torch.int64}


@dataclass(frozen=True)
class TraceSettings:
    """What is the same for all parts of a graph."""

    # The variant's floating type: "fp32", "fp16" or "bf16"
    dtype: str
    opset: int
    # Fixed sizes by letter, and (min, opt, max) of the dynamic ones
    sizes: Sizes
    profile: Profile


def trace(module: nn.Module, inputs: Sequence[TensorSpec], settings: TraceSettings) -> ir.Graph:
    """Exports a module.

    Args:
        module: on the meta device; its forward takes the inputs by name.
        inputs: names, dims (letters) and dtypes.
        settings: type, opset, sizes.

    Returns:
        A graph with the same inputs; every parameter is an initializer without a value, under its path in the module.
    """
    with _quiet(), FakeTensorMode():
        names = _fake_parameters(module)
        arguments, dynamic = example_inputs(inputs, settings)
        exported = torch.export.export(
            module,
            (),
            kwargs=arguments,
            # A module that takes its inputs as **kwargs has no names to give dynamic dims by
            dynamic_shapes=dynamic if any(dynamic.values()) else None,
            strict=False,
            # N = T * tokens + A is a relation of three inputs; it is checked at run time by the operators themselves
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(exported, dynamo=True, opset_version=settings.opset, optimize=False, verbose=False)
        if program is None:
            raise InternalError("torch.onnx.export returned nothing")
        graph = program.model.graph
        parked = [graph.initializers.pop(name) for name in names]
        for value in parked:
            value.const_value = None
        graph.inputs.extend(parked)
        program.optimize()
    graph = program.model.graph
    # An input that is also an output comes back as NAME_orig
    found = [str(value.name).removesuffix("_orig") for value in graph.inputs[: len(inputs)]]
    if found != [spec.name for spec in inputs]:
        raise InternalError(f"the graph's inputs {found} are not those of the part")
    del graph.inputs[len(inputs) :]
    for value in parked:
        graph.initializers[str(value.name)] = value
    return graph


def example_inputs(
    inputs: Sequence[TensorSpec], settings: TraceSettings
) -> tuple[dict[str, torch.Tensor], dict[str, dict[int, torch.export.Dim] | None]]:
    """Uninitialised inputs at the profile's optimum and their dynamic dims, as torch.export takes them."""
    # torch.export takes 0 and 1 for constants; what it makes of 2 and more holds for 1 too
    optimum = {**settings.sizes, **{letter: max(opt, 2) for letter, (_, opt, _) in settings.profile.items()}}
    dims = {
        letter: torch.export.Dim(letter, min=max(low, 2), max=high)
        for letter, (low, _, high) in settings.profile.items()
    }
    arguments, dynamic = {}, {}
    for spec in inputs:
        arguments[spec.name] = torch.empty(spec.shape(optimum), dtype=_TYPES.get(spec.dtype, DTYPES[settings.dtype]))
        dynamic[spec.name] = {i: dims[str(d)] for i, d in enumerate(spec.dims) if d in dims} or None
    return arguments, dynamic


def _fake_parameters(module: nn.Module) -> list[str]:
    for owner in module.modules():
        for name, value in list(owner.named_parameters(recurse=False)):
            empty = torch.empty(value.shape, dtype=value.dtype, device="cpu")
            setattr(owner, name, nn.Parameter(empty, requires_grad=False))
    return [name for name, _ in module.named_parameters()]


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
