"""onnxruntime with the CUDA provider: engines on GPUs for which there is no TensorRT. Nothing is loaded on import."""

from motedge.runtime.backends.onnxruntime_cuda.engine import OnnxRuntimeCudaEngine
from motedge.runtime.backends.onnxruntime_cuda.settings import CUDA_GRAPH_MODES, CudaSettings

__all__ = ["CUDA_GRAPH_MODES", "CudaSettings", "OnnxRuntimeCudaEngine"]
