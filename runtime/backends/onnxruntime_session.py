"""What the onnxruntime backends share: the library, session options, its errors in our words, a session's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from motedge.bundle import Contract
from motedge.errors import BundleError, HostError, MotedgeError

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
_TYPE_NAMES = {
    "fp32": "tensor(float)",
    "fp16": "tensor(float16)",
    "bf16": "tensor(bfloat16)",
    "int64": "tensor(int64)",
}
# Words of the library's messages for what is the machine's lack, not the file's
_TOO_OLD = (
    "opset",
    "IR version",
    "NOT_IMPLEMENTED",
    "Could not find an implementation",
    "is not a registered function",
)
# The CPU's allocator, the arena of the CUDA provider, and CUDA itself
_NO_MEMORY = ("bad_alloc", "Failed to allocate", "AllocateRaw", "out of memory", "Available memory of")


def library() -> Any:
    """The onnxruntime module.

    Raises:
        HostError: not installed, or it does not load.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise HostError("onnxruntime is not installed", fix="pip install motedge, which brings it") from error
    except ImportError as error:
        raise HostError("onnxruntime is installed but does not load", got=str(error), fix="install it again") from error
    return onnxruntime


def library_errors(module: Any) -> tuple[type[BaseException], ...]:
    """What the library may raise."""
    state = module.capi.onnxruntime_pybind11_state
    # Failures under I/O binding come as plain RuntimeError
    return (MemoryError, RuntimeError, *(getattr(state, name) for name in _ERROR_NAMES if hasattr(state, name)))


def session_options(module: Any, threads: Optional[int]) -> Any:
    """SessionOptions that every backend starts from; `threads` of one CPU operator, None: the library's choice."""
    settings = module.SessionOptions()
    settings.graph_optimization_level = module.GraphOptimizationLevel.ORT_ENABLE_ALL
    # 0 leaves the number to the library
    settings.intra_op_num_threads = threads or 0
    # Quantized weights are multiplied in fp32. The default rounds activations to 8 bits as well, which no recipe
    # asked for (docs/log.md); releases that don't know the key ignore it
    settings.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    # The same inputs give the same bits, so that a recorded tick can be replayed. Without it the CUDA provider's fp16
    # answers differ from run to run by 0.2 % of their range (docs/log.md)
    settings.use_deterministic_compute = True
    # Warnings about constant folding and the like are not the user's; errors come as exceptions
    settings.log_severity_level = 4
    return settings


def says_no_memory(error: BaseException) -> bool:
    """Whether the library failed for want of memory."""
    return isinstance(error, MemoryError) or any(word in str(error) for word in _NO_MEMORY)


def load_error(module: Any, graph: str, model: Path, error: BaseException) -> MotedgeError:
    """A failure to make a session, in our words."""
    text = str(error)
    if says_no_memory(error):
        return HostError(
            f"too little memory to load graph {graph!r}",
            got=text,
            fix="close other programs, or take a smaller variant",
        )
    if any(word in text for word in _TOO_OLD):
        return HostError(
            f"onnxruntime {module.__version__} can't run graph {graph!r} ({model.name})",
            got=text,
            fix="upgrade onnxruntime, or take a primitive variant",
        )
    return BundleError(
        f"onnxruntime can't load graph {graph!r} ({model.name})", got=text, fix="export again from the checkpoint"
    )


def check_tensors(session: Any, contract: Contract, dtype: str, model: Path) -> None:
    """Raises BundleError unless the session's tensors are the contract's, in the variant's dtype."""
    for role, specs, found in (
        ("inputs", contract.inputs, session.get_inputs()),
        ("outputs", contract.outputs, session.get_outputs()),
    ):
        kinds = {spec.name: dtype if spec.dtype == "graph" else spec.dtype for spec in specs}
        expected = {spec.name: (_TYPE_NAMES[kinds[spec.name]], len(spec.dims)) for spec in specs}
        got = {value.name: (value.type, len(value.shape)) for value in found}
        if expected != got:
            raise BundleError(
                f"the {role} of {model.name} differ from the contract of graph {contract.graph!r}",
                expected=_describe(expected),
                got=_describe(got),
                fix="export again from the checkpoint",
            )


def _describe(tensors: Mapping[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name} {kind} with {rank} dims" for name, (kind, rank) in sorted(tensors.items()))
