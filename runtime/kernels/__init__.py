"""The project's own CUDA kernels, seen from Python: the compiled library, the solver's step, the camera ingest.

Everything works without them: the solver as an engine's graph, images prepared by numpy on the host.
"""

from motedge.runtime.kernels.library import KernelLibrary

__all__ = ["KernelLibrary"]
