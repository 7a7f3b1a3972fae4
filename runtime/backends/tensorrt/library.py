"""Finding TensorRT or TensorRT-RTX on this machine: the module, its version, and the row of differences that holds."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import HostError
from motedge.runtime.backends.tensorrt.versions import RTX, TensorRtVersion, find_version

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"
_MODULES = {TENSORRT: "tensorrt", TENSORRT_RTX: "tensorrt_rtx"}
INSTALL = {
    TENSORRT: "it comes with JetPack (apt install python3-libnvinfer), elsewhere: pip install tensorrt",
    TENSORRT_RTX: "pip install tensorrt-rtx-cu13",
}
# What loading one of NVIDIA's libraries says when it is the machine that lacks something
_LOAD_ERRORS = (ImportError, OSError, AttributeError)


@dataclass(frozen=True)
class Library:
    """One engine library, imported."""

    # TENSORRT or TENSORRT_RTX
    name: str
    # The Python module
    api: Any
    # "10.3.0.30"
    version: str
    row: TensorRtVersion


def find_library(name: str, purpose: str = "it runs the engines") -> Library:
    """Imports the library; `purpose` says in the error what it is needed for.

    Raises:
        HostError: not installed, installed but not to be loaded, or of a version that is not supported.
    """
    return describe_library(name, _import(name, purpose))


def describe_library(name: str, api: Any) -> Library:
    """The library behind an imported module; HostError for a version that is not supported."""
    version: Optional[str] = getattr(api, "__version__", None)
    if not version:
        raise HostError(f"the module {_MODULES[name]} does not say its version", fix=INSTALL[name])
    if name == TENSORRT_RTX:
        if version.split(".")[0] != "1":
            raise HostError(f"TensorRT-RTX {version} is not supported", expected="1.x", got=version, fix=INSTALL[name])
        return Library(name, api, version, RTX)
    return Library(name, api, version, find_version(version))


def _import(name: str, purpose: str) -> Any:
    module = _MODULES[name]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, f"{module}_libs", f"{module}_bindings"):
            raise
        raise HostError(f"{name} is not installed", why=purpose, fix=INSTALL[name]) from error
    except _LOAD_ERRORS as error:
        raise HostError(f"{name} is installed but does not load", got=str(error), fix=INSTALL[name]) from error
