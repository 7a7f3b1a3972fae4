"""Checkpoint to ONNX graphs: our own torch modules, shape sets, dialects, contracts, tables, samples."""
