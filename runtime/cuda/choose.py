"""The one place where it is decided how the GPU is talked to. Why these two, and in this order: docs/decisions/0011."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from typing import Optional

from motedge.errors import HostError, MissingPackageError, UsageError, closest
from motedge.runtime.cuda.bindings_provider import BindingsCalls
from motedge.runtime.cuda.driver import NO_DRIVER, load_driver
from motedge.runtime.cuda.graph import GraphCapture
from motedge.runtime.cuda.provided import ProvidedCuda
from motedge.runtime.cuda.pycuda_provider import PycudaCalls

PROVIDERS = ("pycuda", "cuda-bindings")
ENVIRONMENT = "MOTEDGE_CUDA_PROVIDER"
_NOT_INSTALLED = "pycuda is not installed"


def open_cuda(ordinal: int = 0, provider: Optional[str] = None, priorities: bool = False) -> ProvidedCuda:
    """Opens a GPU's primary context, in which TensorRT, onnxruntime and torch work too.

    Args:
        ordinal: The GPU, counted as in CUDA_VISIBLE_DEVICES.
        provider: One of PROVIDERS. None: what MOTEDGE_CUDA_PROVIDER says, else pycuda where it can be imported, else
            cuda-bindings.
        priorities: Streams will be asked for with a priority, which pycuda has none of: cuda-bindings is taken
            then, unless a provider is named.

    Returns:
        A Cuda whose `choice` says why it is this provider.

    Raises:
        HostError: no GPU, no driver, or one that is too old.
        MissingPackageError: neither package is there, or the one that is named is not.
    """
    name, choice = choose_provider(provider, priorities)
    if name == "cuda-bindings":
        driver = load_driver()
        return ProvidedCuda(BindingsCalls(driver, ordinal), GraphCapture(driver), choice)
    graphs = GraphCapture(load_driver()) if has_bindings() else None
    return ProvidedCuda(PycudaCalls(ordinal), graphs, choice)


def choose_provider(provider: Optional[str] = None, priorities: bool = False) -> tuple[str, str]:
    """The provider's name, and why it is that one. Starts no CUDA. Warns where pycuda is there and broken.

    Raises:
        UsageError: an unknown name.
        HostError: pycuda is all there is, or is named, and can't be used.
        MissingPackageError: what is named, or everything, is missing.
    """
    named_by = "the caller" if provider is not None else ENVIRONMENT
    name = provider if provider is not None else os.environ.get(ENVIRONMENT) or None
    if name is not None:
        if name not in PROVIDERS:
            raise UsageError(
                f"{named_by} names an unknown way to CUDA: {name!r}",
                expected=" or ".join(PROVIDERS),
                fix=closest(name, PROVIDERS),
            )
        return _require(name), f"{named_by} named it"
    if priorities and has_bindings():
        return "cuda-bindings", "streams with a priority are wanted, and pycuda has none"
    problem = pycuda_problem()
    if problem is None:
        graphs = "graphs through cuda-bindings" if has_bindings() else "no graphs, for cuda-bindings is not installed"
        return "pycuda", f"pycuda is installed; {graphs}"
    if problem != _NOT_INSTALLED and not has_bindings():
        raise HostError("the GPU can't be talked to", got=problem, fix=_fix(problem))
    name = _require("cuda-bindings")
    if problem != _NOT_INSTALLED:
        warnings.warn(f"{problem}; cuda-bindings is taken instead", RuntimeWarning, stacklevel=3)
    return name, problem


def has_bindings() -> bool:
    """Whether cuda-bindings is installed."""
    try:
        return importlib.util.find_spec("cuda.bindings.driver") is not None
    except ImportError:
        return False


def pycuda_problem() -> Optional[str]:
    """Why pycuda can't be used; None where it can be."""
    if importlib.util.find_spec("pycuda") is None:
        return _NOT_INSTALLED
    try:
        importlib.import_module("pycuda.driver")
    except ImportError as error:
        # Built against another CUDA, or there is no libcuda
        return f"pycuda is installed and can't be imported: {error}"
    return None


def _require(name: str) -> str:
    if name == "pycuda":
        problem = pycuda_problem()
        if problem is not None:
            raise HostError("pycuda was asked for", got=problem, fix=_fix(problem))
    elif not has_bindings():
        raise MissingPackageError("cuda-bindings", extra="cuda", purpose="to talk to the GPU")
    return name


def _fix(problem: str) -> str:
    """What to do about a problem of pycuda."""
    if problem == _NOT_INSTALLED:
        return "pip install pycuda, or use cuda-bindings"
    if "libcuda.so" in problem:
        # No other package helps: it is the driver's own library
        return NO_DRIVER
    return "build pycuda for the CUDA of this machine, or use cuda-bindings"
