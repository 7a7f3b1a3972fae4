"""After a kernel has crashed: the GPU's context thrown away, so that all can be built anew in the same process."""

from __future__ import annotations

from typing import Optional

from motedge.runtime.cuda.driver import Driver, load_driver
from motedge.runtime.cuda.errors import CudaError
from motedge.runtime.cuda.facts import select_device


def reset_context(ordinal: int = 0, driver: Optional[Driver] = None) -> None:
    """Resets a GPU's primary context.

    What it does: everything on that GPU that this process made is gone, whoever made it, and the next `open_cuda`
    starts with an empty context. What it does not do: mend the fault, or help other libraries, whose handles (TensorRT
    engines, onnxruntime sessions, torch tensors) are dead. Close them and the Cuda first; `close` frees what a lost
    context has left. NVIDIA promises a clean state after such errors only to a new process: try it once, then report.

    Args:
        ordinal: The GPU.
        driver: Stands in for cuda-bindings, for tests.

    Raises:
        MissingPackageError: cuda-bindings is not installed (pycuda has no such call).
        CudaError: the driver refuses; only a new process helps.
    """
    driver = load_driver() if driver is None else driver
    what = f"the context of GPU {ordinal} can't be reset"
    try:
        driver.call("cuDevicePrimaryCtxReset", select_device(driver, ordinal), what=what)
    except CudaError as error:
        raise CudaError(what, got=error.got, why=error.why, fix="start a new process") from error
