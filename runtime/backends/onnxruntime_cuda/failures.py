"""What a failed run of the CUDA provider means: memory, a lost context, a capture, or something else."""

from __future__ import annotations

import re

from motedge.runtime.backends.onnxruntime_session import says_no_memory
from motedge.runtime.cuda.errors import CaptureError, CudaError, EngineError, OutOfDeviceMemoryError, StickyCudaError

# "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; ..."
_FAILURE = re.compile(r"CUDA failure (\d+)")
# cudaError_t of the runtime's driver_types.h
_OUT_OF_MEMORY = 2
# Illegal address, launch timeout, assert, hardware stack, illegal instruction, misaligned, address space, pc, launch
_STICKY = frozenset((700, 702, 710, 714, 715, 716, 717, 718, 719))
# cudaErrorNotPermitted, and cudaErrorStreamCaptureUnsupported up to cudaErrorCapturedEvent and its kin
_CAPTURE = frozenset((800, *range(900, 910)))


def run_error(error: BaseException, graph: str, dims: str) -> CudaError | EngineError:
    """The error to raise for what the library raised in a run."""
    text = str(error)
    found = _FAILURE.search(text)
    code = int(found.group(1)) if found else None
    what = f"onnxruntime failed in graph {graph!r} at {dims}"
    if code in _STICKY:
        return StickyCudaError(
            f"{what}: the CUDA context is lost", got=text, fix="close everything and open it again, in a new process"
        )
    if code in _CAPTURE:
        return CaptureError(f"{what}: it can't be captured in a CUDA graph", got=text, fix='cuda_graph="own"')
    if code == _OUT_OF_MEMORY or says_no_memory(error):
        return OutOfDeviceMemoryError(
            f"{what}: the GPU's memory is exhausted",
            got=text,
            why="the library allocates its workspace in the first run of each set of shapes",
            fix="close other programs, raise the memory limit, or take a smaller variant",
        )
    return EngineError(what, got=text, fix="motedge verify BUNDLE --engine onnxruntime-cuda")
