"""TensorRT and TensorRT-RTX: the same code, by the row of differences of the version that is installed."""
