"""Building engines with TensorRT-RTX for GPUs that are not here, through our own builder.

The library refuses what a GPU can't run: it is the judge of which recipe fits which compute capability.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest

from motedge.bundle import Contract, TensorSpec
from motedge.targets.builders.builder import BuildRequest, BuiltEngine
from motedge.targets.builders.registry import make_builder
from motedge.targets.builders.settings import BuildSettings

# Of the GPUs that engines are shown to be built for: Ampere, Ada, Blackwell, DGX Spark
CAPABILITIES = ("8.6", "8.9", "12.0", "12.1")


def build_engine(
    model: Path,
    contract: Contract | None,
    *capabilities: str,
    dtype: str = "fp16",
    asked: Mapping[str, tuple[str, str]] | None = None,
) -> tuple[int, BuiltEngine]:
    """Builds an ONNX file into one engine for some compute capabilities.

    Args:
        model: the file.
        contract: gives the ranges of dynamic dims; None for a graph without such.
        capabilities: "8.6", "8.9" and so on.
        dtype: the graph's own type.
        asked: what the recipe asks of each projection.

    Returns:
        The engine's size in bytes, and what the builder knows of it.

    Raises:
        BuildError: the parser or the builder refused; says why.
    """
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install motedge[test]")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "engine"
        request = BuildRequest(
            graph=contract.graph if contract else model.stem,
            variant=model.stem,
            model=model,
            contract=contract or _fixed_contract(model),
            dtype=dtype,
            asked=dict(asked or {}),
            capabilities=capabilities,
            settings=BuildSettings(),
            out=out,
        )
        built = make_builder("tensorrt-rtx").build(request, lambda phase, share: None)
        return out.stat().st_size, built


def _fixed_contract(model: Path) -> Contract:
    """The inputs of a graph without dynamic dims."""
    graph = onnx.load(str(model), load_external_data=False).graph
    inputs = tuple(
        TensorSpec(value.name, tuple(d.dim_value for d in value.type.tensor_type.shape.dim), "graph", "an input")
        for value in graph.input
    )
    return Contract(model.stem, inputs, (), {}, {})
