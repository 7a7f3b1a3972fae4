"""The onnxruntime backend on the CPU: inputs and outputs are numpy buffers that the session reads and writes in place.

Works with onnxruntime 1.19 (the newest for Python 3.9 knows opset 21) and later.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from motedge.bundle import Contract
from motedge.errors import BundleError, ContractError, HostError, MotedgeError
from motedge.runtime.contract_check import check_array, host_dtype, require_input, tensor_shapes
from motedge.runtime.engine import Array, EngineOptions

# Errors of the library's pybind11 module; which of them exist depends on its version
_ERROR_NAMES = (
    "Fail",
    "InvalidArgument",
    "NoSuchFile",
    "NoModel",
    "EngineError",
    "RuntimeException",
    "InvalidProtobuf",
    "ModelLoaded",
    "NotImplemented",
    "InvalidGraph",
    "EPFail",
)
_TYPE_NAMES = {"float32": "tensor(float)", "float16": "tensor(float16)", "int64": "tensor(int64)"}
# Words of the library's messages for what is the machine's lack, not the file's
_TOO_OLD = (
    "opset",
    "IR version",
    "NOT_IMPLEMENTED",
    "Could not find an implementation",
    "is not a registered function",
)
_NO_MEMORY = ("bad_alloc", "Failed to allocate", "AllocateRaw")


class OnnxRuntimeEngine:
    """One graph in one CPU session. Contexts share the session and its weights."""

    def __init__(self, model: Path, contract: Contract, dtype: str, options: EngineOptions) -> None:
        """Loads `model`, whose files have been checked already.

        Raises:
            BundleError: not an ONNX model, or its tensors differ from the contract.
            HostError: onnxruntime is missing, too old for the graph, or out of memory.
        """
        self._library = _library()
        self._errors = _errors(self._library)
        self.contract, self._dtype = contract, dtype
        try:
            self._session = self._library.InferenceSession(
                str(model), self._session_options(options), providers=["CPUExecutionProvider"]
            )
        except self._errors as error:
            raise self._load_error(model, error) from error
        self._check_tensors(model)

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

    def _session_options(self, options: EngineOptions) -> Any:
        settings = self._library.SessionOptions()
        settings.graph_optimization_level = self._library.GraphOptimizationLevel.ORT_ENABLE_ALL
        settings.enable_mem_pattern = True
        # 0 leaves the number to the library
        settings.intra_op_num_threads = options.threads or 0
        # Quantized weights are multiplied in fp32. The default rounds activations to 8 bits as well, which no recipe
        # asked for (docs/log.md); releases that don't know the key ignore it
        settings.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        # Warnings about constant folding and the like are not the user's; errors come as exceptions
        settings.log_severity_level = 4
        return settings

    def _load_error(self, model: Path, error: BaseException) -> MotedgeError:
        graph, text = self.contract.graph, str(error)
        if isinstance(error, MemoryError) or any(word in text for word in _NO_MEMORY):
            return HostError(
                f"too little memory to load graph {graph!r}",
                got=text,
                fix="close other programs, or take a smaller variant",
            )
        if any(word in text for word in _TOO_OLD):
            return HostError(
                f"onnxruntime {self._library.__version__} can't run graph {graph!r} ({model.name})",
                got=text,
                fix="upgrade onnxruntime, or take a primitive variant",
            )
        return BundleError(
            f"onnxruntime can't load graph {graph!r} ({model.name})", got=text, fix="export again from the checkpoint"
        )

    def _check_tensors(self, model: Path) -> None:
        for role, specs, found in (
            ("inputs", self.contract.inputs, self._session.get_inputs()),
            ("outputs", self.contract.outputs, self._session.get_outputs()),
        ):
            expected = {s.name: (_TYPE_NAMES[host_dtype(s.dtype, self._dtype).name], len(s.dims)) for s in specs}
            got = {value.name: (value.type, len(value.shape)) for value in found}
            if expected != got:
                raise BundleError(
                    f"the {role} of {model.name} differ from the contract of graph {self.contract.graph!r}",
                    expected=_describe(expected),
                    got=_describe(got),
                    fix="export again from the checkpoint",
                )


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
            text = str(error)
            memory = isinstance(error, MemoryError) or any(word in text for word in _NO_MEMORY)
            raise HostError(
                f"onnxruntime failed in graph {self._contract.graph!r}" + (": out of memory" if memory else ""),
                got=text,
                fix="close other programs, or take a smaller variant" if memory else "motedge verify BUNDLE",
            ) from error


def _library() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise HostError("onnxruntime is not installed", fix="pip install motedge, which brings it") from error
    except ImportError as error:
        raise HostError("onnxruntime is installed but does not load", got=str(error), fix="install it again") from error
    return onnxruntime


def _errors(library: Any) -> tuple[type[BaseException], ...]:
    state = library.capi.onnxruntime_pybind11_state
    # Failures under I/O binding come as plain RuntimeError
    return (MemoryError, RuntimeError, *(getattr(state, name) for name in _ERROR_NAMES if hasattr(state, name)))


def _describe(tensors: Mapping[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name} {kind} with {rank} dims" for name, (kind, rank) in sorted(tensors.items()))
