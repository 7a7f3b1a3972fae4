"""What goes wrong on a GPU, in the words of the user."""

from __future__ import annotations

from motedge.errors import HostError


class CudaError(HostError):
    """A CUDA call failed. `sticky`: the context is lost, and everything in it with it."""

    sticky = False


class StickyCudaError(CudaError):
    """A kernel crashed: no call in this context works any more. Closing everything and starting anew may help."""

    sticky = True


class OutOfDeviceMemoryError(CudaError):
    """The GPU has no such block of memory free."""


class CaptureError(CudaError):
    """Work that can't be captured in a CUDA graph."""


class EngineError(HostError):
    """An engine library refused or failed; the message names engine, graph and, where known, the tensor."""
