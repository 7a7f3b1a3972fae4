"""TensorRT and TensorRT-RTX: engines on the GPU, and what each version has, lacks and names differently."""
