"""From CUresult names to errors that say what, why and how to mend it. The names are those of cuda.h."""

from __future__ import annotations

from typing import Optional

from motedge.runtime.cuda.errors import CaptureError, CudaError, OutOfDeviceMemoryError, StickyCudaError

OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"
NOT_READY = "CUDA_ERROR_NOT_READY"
# cuda.h says of these: "leaves the process in an inconsistent state and any further CUDA work will return the same
# error", "the context cannot be used anymore", or that the hardware failed
STICKY = {
    "CUDA_ERROR_ILLEGAL_ADDRESS": "a kernel read or wrote where there is no memory",
    "CUDA_ERROR_MISALIGNED_ADDRESS": "a kernel used an address that is not a multiple of the type's size",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE": "a kernel used an address of the wrong kind of memory",
    "CUDA_ERROR_INVALID_PC": "a kernel jumped to where there is no code",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION": "a kernel ran an instruction that this GPU lacks, or damaged code",
    "CUDA_ERROR_HARDWARE_STACK_ERROR": "a kernel overran its stack",
    "CUDA_ERROR_LAUNCH_FAILED": "a kernel crashed, often by a wrong pointer or past the end of shared memory",
    "CUDA_ERROR_LAUNCH_TIMEOUT": "a kernel ran longer than the display's watchdog allows",
    "CUDA_ERROR_ASSERT": "an assertion in a kernel failed",
    "CUDA_ERROR_TENSOR_MEMORY_LEAK": "a kernel did not give back its tensor memory",
    "CUDA_ERROR_CONTAINED": "the hardware contained a fault of this process's work",
    "CUDA_ERROR_ECC_UNCORRECTABLE": "the GPU's memory has an error that ECC can't correct",
    "CUDA_ERROR_NVLINK_UNCORRECTABLE": "the link between GPUs has an error that can't be corrected",
    "CUDA_ERROR_EXTERNAL_DEVICE": "a device that CUDA waits for reported an error",
    "CUDA_ERROR_MPS_CLIENT_TERMINATED": "the multi-process server ended this process's work",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED": "another part of this process destroyed or reset the GPU's context",
}
CAPTURE = {
    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": "the call can't be part of a CUDA graph",
    "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": "an earlier call in it could not be captured",
    "CUDA_ERROR_STREAM_CAPTURE_MERGE": "it would have merged two captures",
    "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED": "the capture was not begun on this stream",
    "CUDA_ERROR_STREAM_CAPTURE_UNJOINED": "a stream that took part was not joined again",
    "CUDA_ERROR_STREAM_CAPTURE_ISOLATION": "it would depend on work outside the capture",
    "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT": "something used the legacy default stream, which waits for all others",
    "CUDA_ERROR_CAPTURED_EVENT": "the event was recorded in a capture",
    "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD": "a capture was ended by another thread than began it",
}
# why, fix
_KNOWN: dict[str, tuple[Optional[str], Optional[str]]] = {
    "CUDA_ERROR_NO_DEVICE": ("the driver sees no GPU", "check nvidia-smi and CUDA_VISIBLE_DEVICES"),
    "CUDA_ERROR_INVALID_DEVICE": ("there is no GPU of that number", "check nvidia-smi and CUDA_VISIBLE_DEVICES"),
    "CUDA_ERROR_STUB_LIBRARY": (
        "libcuda.so.1 is the toolkit's stub, not the driver's",
        "take the toolkit's stubs folder off LD_LIBRARY_PATH",
    ),
    "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER": ("the driver is too old for this call", "install a newer NVIDIA driver"),
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": (
        "the kernel's NVIDIA module and libcuda are of different versions",
        "restart after a driver update; in a container, use the host's libcuda",
    ),
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": (
        "CUDA's forward compatibility package does not cover this GPU",
        "take its folder off LD_LIBRARY_PATH, or install a newer driver",
    ),
    "CUDA_ERROR_DEVICE_UNAVAILABLE": (
        "another process has the GPU for itself, or its compute mode prohibits work",
        "end that process, or nvidia-smi -c DEFAULT",
    ),
    "CUDA_ERROR_SYSTEM_NOT_READY": ("the GPU's services are not running yet", "start the fabric manager, or wait"),
    "CUDA_ERROR_NOT_INITIALIZED": ("CUDA was not started in this process, or the process was forked", None),
    "CUDA_ERROR_DEINITIALIZED": ("the process is ending", None),
    "CUDA_ERROR_INVALID_CONTEXT": ("no context is current in this thread", "call it inside `with cuda.current():`"),
    "CUDA_ERROR_NO_BINARY_FOR_GPU": ("the module holds no code for this GPU", "build the kernels for its SM"),
    "CUDA_ERROR_INVALID_IMAGE": ("the module is damaged, or no CUDA module", None),
    "CUDA_ERROR_INVALID_PTX": ("the driver could not compile the PTX", None),
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": (
        "the PTX is newer than the driver",
        "install a newer driver, or build the kernels with an older CUDA",
    ),
    "CUDA_ERROR_JIT_COMPILER_NOT_FOUND": ("the driver's PTX compiler is missing", "install libnvidia-ptxjitcompiler"),
    "CUDA_ERROR_NOT_FOUND": ("there is no such name in the module", None),
    "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES": ("too many threads, registers or shared memory for one block", None),
    "CUDA_ERROR_INVALID_VALUE": ("an argument is out of range, often an address that CUDA does not know", None),
}
OUT_OF_MEMORY_FIX = "free memory: other processes (nvidia-smi), a smaller recipe, fewer shapes in use"
_STICKY_FIX = "close everything on this GPU and open it anew; if it comes again, run with compute-sanitizer"


def cuda_error(name: str, what: str, *, text: Optional[str] = None, why: Optional[str] = None) -> CudaError:
    """The error for a CUresult.

    Args:
        name: As in cuda.h, "CUDA_ERROR_ILLEGAL_ADDRESS".
        what: What was being done.
        text: The driver's own words.
        why: More than is known here about the reason.
    """
    got = name if text is None else f"{name}: {text}"
    if name in STICKY:
        return StickyCudaError(what, got=got, why=why or STICKY[name], fix=_STICKY_FIX)
    if name in CAPTURE:
        return CaptureError(
            f"{what} while work was captured in a CUDA graph",
            got=got,
            why=CAPTURE[name],
            fix="do it before the capture, or run without a CUDA graph",
        )
    if name == OUT_OF_MEMORY:
        return OutOfDeviceMemoryError(what, got=got, why=why or "the GPU's memory is full", fix=OUT_OF_MEMORY_FIX)
    known_why, fix = _KNOWN.get(name, (None, None))
    return CudaError(what, got=got, why=why or known_why, fix=fix)
