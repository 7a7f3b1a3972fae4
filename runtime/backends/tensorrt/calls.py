"""Calls into the engine library, each of them checked: what it returns, raises and logs becomes an error of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional, TypeVar

from motedge.errors import HostError
from motedge.runtime.backends.tensorrt.log import context_lost, memory_failure
from motedge.runtime.cuda.errors import EngineError, OutOfDeviceMemoryError, StickyCudaError
from motedge.runtime.cuda.interface import Cuda
from motedge.units import format_bytes

# What pybind11 makes of a C++ exception, of a null pointer and of a value out of range
RAISED = (RuntimeError, TypeError, ValueError, MemoryError)
_SHOWN = 3
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class LibraryCalls:
    """One engine's way into the library."""

    # "tensorrt 10.3.0.30"
    library: str
    # Name of the engine's file
    file: str
    graph: str
    # ILogger with a list `errors`
    logger: Any
    cuda: Cuda

    def value(self, action: str, call: Callable[..., _Value], *arguments: Any, tensor: Optional[str] = None) -> _Value:
        """Makes a call that returns a value.

        Args:
            action: what it is to do, for the error: "give the size of its workspace".
            call: the library's function.
            arguments: for it.
            tensor: that it is about.

        Raises:
            CudaError, EngineError: it raised.
        """
        self.logger.errors.clear()
        try:
            return call(*arguments)
        except RAISED as error:
            failure = self.failure(action, tensor=tensor, raised=error)
            # A traceback keeps the variables of its frames, and these would keep the library's objects on the GPU
            del call, arguments
            raise failure from error

    def require(
        self, action: str, call: Callable[..., _Value], *arguments: Any, tensor: Optional[str] = None
    ) -> _Value:
        """Makes a call that returns False, or nothing, where it failed; errors as in `value`."""
        value = self.value(action, call, *arguments, tensor=tensor)
        if value is None or value is False:
            del call, arguments
            raise self.failure(action, tensor=tensor)
        return value

    def failure(
        self,
        action: str,
        *,
        tensor: Optional[str] = None,
        raised: Optional[BaseException] = None,
        fix: Optional[str] = None,
    ) -> HostError:
        """The error for a call that failed, by what the library logged since the call before."""
        texts = list(dict.fromkeys([*self.logger.errors, *([str(raised)] if raised is not None else [])]))
        where = f"graph {self.graph!r} ({self.file})" + (f", tensor {tensor!r}" if tensor else "")
        what = f"{self.library} could not {action}: {where}"
        got = "; ".join(texts[-_SHOWN:]) or "it gave no reason"
        if context_lost(texts):
            return StickyCudaError(what, got=got, why="a kernel crashed, and its CUDA context with it", fix=fix)
        if isinstance(raised, MemoryError) or memory_failure(texts):
            free, total = self.cuda.memory_info()
            return OutOfDeviceMemoryError(
                what,
                got=f"{format_bytes(free)} of {format_bytes(total)} free; {got}",
                why="the GPU's memory is full",
                fix="close other programs, or take a smaller recipe, fewer prompts or --weight-streaming",
            )
        return EngineError(what, got=got, fix=fix)
