"""The CUDA layer: memory, streams, events, kernels and graphs behind one interface, by pycuda or cuda-bindings.

Importing it starts no CUDA and needs neither library.
"""

from motedge.runtime.cuda.interface import Cuda, CudaGraph, DeviceFacts, DeviceMemory, Event, Kernel, Stream

__all__ = ["Cuda", "CudaGraph", "DeviceFacts", "DeviceMemory", "Event", "Kernel", "Stream"]
