"""Holds arrays against a graph's contract before an engine library sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from motedge.bundle import Contract
from motedge.errors import ContractError
from motedge.runtime.engine import Array

# numpy has no bf16: a bf16 graph's K and V never leave its device
_GRAPH_DTYPES: dict[str, np.dtype[Any]] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}
_FIXED_DTYPES: dict[str, np.dtype[Any]] = {"fp32": np.dtype(np.float32), "int64": np.dtype(np.int64)}


def host_dtype(contract_dtype: str, graph_dtype: str) -> np.dtype[Any]:
    """The numpy dtype of a tensor: `contract_dtype` as in TensorSpec, `graph_dtype` the variant's own.

    Raises:
        ContractError: there is none (bf16).
    """
    known = _GRAPH_DTYPES if contract_dtype == "graph" else _FIXED_DTYPES
    name = graph_dtype if contract_dtype == "graph" else contract_dtype
    if name not in known:
        raise ContractError(f"the host has no {name} arrays", expected=" or ".join(known), got=name)
    return known[name]


def tensor_shapes(contract: Contract, dims: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor for these sizes of the dynamic letters.

    Raises:
        ContractError: a size outside the profile, or a letter without one.
    """
    contract.check_dims(dims)
    sizes = {**contract.sizes, **dims}
    return {spec.name: spec.shape(sizes) for spec in (*contract.inputs, *contract.outputs)}


def require_input(contract: Contract, name: str) -> None:
    """Raises ContractError unless the graph has an input of that name."""
    names = [spec.name for spec in contract.inputs]
    if name not in names:
        raise ContractError(f"graph {contract.graph!r} has no input {name!r}", expected=", ".join(names))


def check_array(graph: str, name: str, value: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Returns `value` if it is an array that can be bound as it is.

    Raises:
        ContractError: not an array, another dtype or shape, or not contiguous in C order.
    """
    what = f"graph {graph!r} can't take this {name}"
    wanted = f"{dtype.name} {list(shape)}"
    if not isinstance(value, np.ndarray):
        raise ContractError(what, expected=f"a numpy array, {wanted}", got=type(value).__name__)
    if value.dtype != dtype or value.shape != shape:
        raise ContractError(what, expected=wanted, got=f"{value.dtype.name} {list(value.shape)}")
    if not value.flags.c_contiguous:
        raise ContractError(
            what,
            expected="C order without gaps",
            got=f"strides {value.strides} bytes",
            why="inputs are bound where they lie, not copied",
            fix="numpy.ascontiguousarray",
        )
    return value
