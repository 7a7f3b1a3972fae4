"""cuda-bindings' driver API, each call checked. Versions 12.9 and 13 take and give the same for what is used here."""

from __future__ import annotations

import importlib
from typing import Any, Optional

from motedge.errors import HostError, MissingPackageError
from motedge.runtime.cuda.error_names import cuda_error
from motedge.runtime.cuda.errors import CudaError

# JetPack 6's driver, and the oldest that cuda-bindings 12 says it works with
MIN_DRIVER_CUDA = (12, 0)
NO_DRIVER = "install NVIDIA's driver; in a container, start it with --gpus all or --runtime nvidia"


class Driver:
    """The driver API. `call("cuMemAlloc", nbytes)` returns what follows the CUresult: nothing, a value or a tuple."""

    def __init__(self, api: Any) -> None:
        """`api` is the module cuda.bindings.driver, or what behaves like it."""
        self.api = api

    def call(self, name: str, *arguments: Any, what: Optional[str] = None) -> Any:
        """Calls a function of the driver.

        Args:
            name: As in cuda.h, without a version.
            arguments: Its inputs; outputs are returned.
            what: For the error: what is being done. Default: the function's name.

        Raises:
            CudaError: or the subclass that fits; its first line is `what`.
        """
        result = self.attempt(name, *arguments)
        if result[0] != 0:
            raise self.error(result[0], what or f"{name} failed")
        return result[1] if len(result) == 2 else (None if len(result) == 1 else result[1:])

    def attempt(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Calls a function whose CUresult the caller looks at. Raises HostError if the driver has no such function."""
        try:
            result: tuple[Any, ...] = getattr(self.api, name)(*arguments)
        except RuntimeError as error:
            # cuda-bindings: 'Function "cuGraphInstantiateWithFlags" not found', or libcuda itself
            fix = "install a newer NVIDIA driver" if "not found" in str(error) else NO_DRIVER
            raise HostError(f"the NVIDIA driver can't be asked for {name}", got=str(error), fix=fix) from error
        except ValueError as error:
            # A result that is newer than the bindings: "918 is not a valid CUresult"
            raise CudaError(
                f"{name} failed", got=str(error), fix="update cuda-bindings to the driver's version"
            ) from error
        return result

    def error(self, result: Any, what: str) -> HostError:
        """The error of a CUresult."""
        name = self.name_of(result)
        return cuda_error(name, what, text=self._text_of(result))

    def name_of(self, result: Any) -> str:
        """The name of a CUresult, also of one that is newer than the bindings."""
        name = getattr(result, "name", None)
        return name if isinstance(name, str) else f"CUresult {int(result)}"

    def _text_of(self, result: Any) -> Optional[str]:
        status, text = self.api.cuGetErrorString(result)
        return text.decode("utf-8", errors="replace") if status == 0 and isinstance(text, bytes) else None


def import_driver() -> Any:
    """The module cuda.bindings.driver.

    Raises:
        MissingPackageError: cuda-bindings is not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise MissingPackageError("cuda-bindings", extra="cuda", purpose="to talk to the GPU") from error


def load_driver(api: Optional[Any] = None) -> Driver:
    """Starts CUDA in this process. `api` stands in for cuda-bindings' module in tests.

    Raises:
        MissingPackageError: cuda-bindings is not installed.
        HostError: no driver, no GPU, or a driver that is too old; says which.
    """
    driver = Driver(import_driver() if api is None else api)
    try:
        result = driver.attempt("cuInit", 0)
    except HostError as error:
        raise HostError("this machine has no NVIDIA driver", got=error.got, fix=NO_DRIVER) from error
    if result[0] != 0:
        raise driver.error(result[0], "CUDA can't be started on this machine")
    version = driver.call("cuDriverGetVersion")
    found = (version // 1000, version % 1000 // 10)
    if found < MIN_DRIVER_CUDA:
        raise HostError(
            "the NVIDIA driver is too old",
            expected=f"one for CUDA {MIN_DRIVER_CUDA[0]}.{MIN_DRIVER_CUDA[1]} or later",
            got=f"one for CUDA {found[0]}.{found[1]}",
            fix="install a newer driver (on a Jetson: JetPack 6 or later)",
        )
    return driver
