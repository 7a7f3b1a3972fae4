"""onnxruntime: graphs optimised for CPUs."""
