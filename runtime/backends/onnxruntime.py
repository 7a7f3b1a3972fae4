"""The onnxruntime backend on the CPU: inputs and outputs are numpy buffers that the session reads and writes in place.

Works with onnxruntime 1.19 (the newest for Python 3.9 knows opset 21) and later.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from motedge.bundle import Contract
from motedge.errors import ContractError, HostError
from motedge.runtime.backends.onnxruntime_session import (
    check_tensors,
    library,
    library_errors,
    load_error,
    says_no_memory,
    session_options,
)
from motedge.runtime.contract_check import check_array, host_dtype, require_input, tensor_shapes
from motedge.runtime.engine import Array, EngineOptions


class OnnxRuntimeEngine:
    """One graph in one CPU session. Contexts share the session and its weights."""

    def __init__(self, model: Path, contract: Contract, dtype: str, options: EngineOptions) -> None:
        """Loads `model`, whose files have been checked already.

        Raises:
            BundleError: not an ONNX model, or its tensors differ from the contract.
            HostError: onnxruntime is missing, too old for the graph, or out of memory.
        """
        module = library()
        self._errors = library_errors(module)
        # `model`: where it came from, by which others tell the variant
        self.contract, self.model, self._dtype = contract, model, dtype
        settings = session_options(module, options.threads)
        settings.enable_mem_pattern = True
        try:
            self._session = module.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
        except self._errors as error:
            raise load_error(module, contract.graph, model, error) from error
        # bf16 has no numpy dtype, and the CPU no kernels for it
        for spec in (*contract.inputs, *contract.outputs):
            host_dtype(spec.dtype, dtype)
        check_tensors(self._session, contract, dtype, model)

    @property
    def dtype(self) -> str:
        """ "fp32" or "fp16"."""
        return self._dtype

    def context(self, dims: Mapping[str, int]) -> OnnxRuntimeContext:
        """See `motedge.runtime.engine.Engine.context`."""
        if self._session is None:
            raise ContractError(f"the engine of graph {self.contract.graph!r} has been closed")
        return OnnxRuntimeContext(self._session, self.contract, self._dtype, dims, self._errors)

    def close(self) -> None:
        """Frees the session once no context holds it any more."""
        self._session = None


class OnnxRuntimeContext:
    """Buffers of one set of shapes. Outputs are bound once; an input anew only when another array comes."""

    def __init__(
        self,
        session: Any,
        contract: Contract,
        dtype: str,
        dims: Mapping[str, int],
        errors: tuple[type[BaseException], ...],
    ) -> None:
        self._session, self._contract, self._errors = session, contract, errors
        self._shapes = tensor_shapes(contract, dims)
        self._dtypes = {s.name: host_dtype(s.dtype, dtype) for s in (*contract.inputs, *contract.outputs)}
        # Held so that the memory behind the bound pointers stays
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array] = {}
        self._binding = session.io_binding()
        for spec in contract.outputs:
            buffer = np.zeros(self._shapes[spec.name], self._dtypes[spec.name])
            self._outputs[spec.name] = buffer
            self._binding.bind_output(spec.name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)

    def set_input(self, name: str, value: Array) -> None:
        """See `motedge.runtime.engine.Context.set_input`."""
        if self._inputs.get(name) is value:
            return
        require_input(self._contract, name)
        array = check_array(self._contract.graph, name, value, self._shapes[name], self._dtypes[name])
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self._inputs[name] = array

    def output(self, name: str) -> Array:
        """See `motedge.runtime.engine.Context.output`."""
        if name not in self._outputs:
            raise ContractError(
                f"graph {self._contract.graph!r} has no output {name!r}", expected=", ".join(self._outputs)
            )
        return self._outputs[name]

    def run(self) -> None:
        """Runs the session.

        Raises:
            ContractError: an input was never set.
            HostError: onnxruntime failed, for example for want of memory.
        """
        missing = [spec.name for spec in self._contract.inputs if spec.name not in self._inputs]
        if missing:
            raise ContractError(f"graph {self._contract.graph!r} was run without all inputs", got=f"no {missing}")
        try:
            self._session.run_with_iobinding(self._binding)
        except self._errors as error:
            memory = says_no_memory(error)
            raise HostError(
                f"onnxruntime failed in graph {self._contract.graph!r}" + (": out of memory" if memory else ""),
                got=str(error),
                fix="close other programs, or take a smaller variant" if memory else "motedge verify BUNDLE",
            ) from error
