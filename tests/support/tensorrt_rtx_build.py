"""Building engines with TensorRT-RTX for a GPU that is not here. The builder itself refuses what the GPU can't run."""

from __future__ import annotations

from pathlib import Path

import pytest

from motedge.bundle import Contract


def build_engine(model: Path, contract: Contract | None, compute_capability: str) -> int:
    """Parses an ONNX file and builds it for one compute capability; returns the engine's size in bytes.

    Args:
        model: the file.
        contract: gives the ranges of dynamic dims; None for a graph without such.
        compute_capability: "8.6", "8.9" or "12.0".

    Raises:
        ValueError: the parser or the builder refused; says why.
    """
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install motedge[test]")
    errors: list[str] = []

    class Logger(trt.ILogger):
        def log(self, severity: object, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                errors.append(message)

    builder = trt.Builder(Logger())
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, Logger())
    if not parser.parse_from_file(str(model)):
        raise ValueError("; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    number = compute_capability.replace(".", "")
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{number}"), 0)
    if contract is not None:
        profile = builder.create_optimization_profile()
        sizes = [{**contract.sizes, **{d: r[i] for d, r in contract.profile.items()}} for i in range(3)]
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            if -1 in tuple(tensor.shape):
                profile.set_shape(tensor.name, *(contract.tensor(tensor.name).shape(s) for s in sizes))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError("; ".join(errors))
    return len(memoryview(engine))
