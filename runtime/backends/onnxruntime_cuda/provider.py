"""Loading onnxruntime's CUDA provider, and saying what is missing where it can't be loaded."""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from motedge.errors import HostError
from motedge.runtime.backends.onnxruntime_session import library
from motedge.runtime.cuda import Stream

CUDA_PROVIDER = "CUDAExecutionProvider"
# libonnxruntime_providers_cuda.so needs the other one's symbols
_LIBRARIES = ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so")


@dataclass(frozen=True)
class Provider:
    """An execution provider, and the device on which it binds memory. Tests put the CPU's in the place of CUDA's."""

    name: str = CUDA_PROVIDER
    # As `bind_input` names it
    device: str = "cuda"
    # How a run is put on a stream; None: by calling it, since the library itself enqueues
    submit: Optional[Callable[[Stream, Callable[[], None]], None]] = None


def load_library(provider: Provider) -> Any:
    """The onnxruntime module with the libraries of CUDA loaded where NVIDIA's wheels brought them.

    Raises:
        HostError: onnxruntime is missing, or was built without the provider.
    """
    module = library()
    available = module.get_available_providers()
    if provider.name not in available:
        raise HostError(
            f"this onnxruntime ({module.__version__}) was built without {provider.name}",
            expected="the package onnxruntime-gpu",
            got=", ".join(available),
            why="where onnxruntime and onnxruntime-gpu are both installed, one overwrites the other's files",
            fix="pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu",
        )
    if provider.name != CUDA_PROVIDER:
        return module
    # On the process's log, not the session's: warnings of plugins that nobody asked for, and an error for each plan of
    # cuDNN that it tries and leaves. Errors that matter are raised; 4: fatal ones
    module.set_default_logger_severity(4)
    if hasattr(module, "preload_dlls"):
        # It prints what it does not find. Some of that need not be there; what must be is named by `missing_provider`
        with contextlib.redirect_stdout(io.StringIO()):
            module.preload_dlls()
    return module


def missing_provider(module: Any, provider: Provider, graph: str, error: Optional[BaseException] = None) -> HostError:
    """The error for a session that came up without the provider: the library says why on its log only.

    Args:
        module: the library.
        provider: that is missing.
        graph: that was to be loaded.
        error: what the library raised, if it did.
    """
    said = _loader_says(module)
    other = str(error) if error is not None else "its libraries load; the driver may be too old, or there is no GPU"
    return HostError(
        f"onnxruntime {module.__version__} could not start {provider.name} for graph {graph!r}",
        expected=_built_for(module),
        got=said or other,
        why="the library would go on with the CPU alone",
        fix='pip install "onnxruntime-gpu[cuda,cudnn]", or put the folders of these libraries on LD_LIBRARY_PATH'
        if said
        else "motedge doctor, which tells of driver and GPU",
    )


def _loader_says(module: Any) -> Optional[str]:
    """The dynamic loader's complaint, such as "libcublasLt.so.13: cannot open shared object file"; None: none."""
    folder = Path(module.__file__).parent / "capi"
    for name in _LIBRARIES:
        try:
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            return str(error)
    # Loaded only when first used, so that the loader has not asked for it
    try:
        ctypes.CDLL("libcudnn.so.9")
    except OSError as error:
        return str(error)
    return None


def _built_for(module: Any) -> str:
    version = getattr(module, "cuda_version", "") or "the CUDA that it was built for"
    return f"the libraries of CUDA {version} and cuDNN 9"
