"""Memory and disk of building a plan's engines, one graph at a time."""

from __future__ import annotations

from collections.abc import Sequence

from motedge.bundle import Bundle
from motedge.targets.builders.expected import expect_of_weights
from motedge.targets.catalog import Target
from motedge.targets.legality import ONNXRUNTIME, TENSORRT, EngineLibrary
from motedge.targets.plan.assumptions import context_bytes
from motedge.targets.plan.figures import GraphSizes
from motedge.targets.plan.model import BuildPlan, GraphPlan

ON_DEVICE, ANYWHERE = "on the device", "on any machine"
# Roles of files that a device needs beside its engines
_DEVICE_ROLES = ("contract", "table", "tokenizer", "samples")
_FITTED = (
    "fitted to full-size builds with TensorRT-RTX 1.7.1 on x86 (benchmarks/results/engine_build.json); not measured "
    "with TensorRT on a device"
)


def build_bytes(sizes: GraphSizes, library: EngineLibrary) -> tuple[int, int]:
    """(Bytes of the engine, highest memory of its build) of one graph."""
    expected = expect_of_weights(sizes.weight_bytes, sizes.fp4_bytes, library.name, library.version or "0")
    if library.name == ONNXRUNTIME:
        # An optimised ONNX file: the weights themselves
        return sizes.weight_bytes, expected.peak_bytes
    return expected.engine_bytes, expected.peak_bytes


def plan_build(bundle: Bundle, target: Target, library: EngineLibrary, graphs: Sequence[GraphPlan]) -> BuildPlan:
    """Which graph needs most, and whether the device has it; elsewhere than on the device nothing is judged."""
    worst = max(graphs, key=lambda graph: graph.build_peak_bytes)
    engines = sum(graph.engine_bytes for graph in graphs)
    shipped = sum(entry.bytes for entry in bundle.manifest.files.values() if entry.role in _DEVICE_ROLES)
    on_device = library.name == TENSORRT
    peak, available, fits = worst.build_peak_bytes, None, None
    # Graphs and their weights must be where engines are built
    sources = sum(graph.weight_bytes for graph in graphs) if on_device else 0
    if on_device and target.unified_memory:
        peak += int(context_bytes(target).value or 0)
        if target.available_gb.value is not None:
            available = int(target.available_gb.value * 1e9)
            fits = peak <= available
    note = f"{_FITTED}; with CUDA's own memory" if on_device and target.unified_memory else _FITTED
    if library.name == ONNXRUNTIME:
        note = "optimising a graph maps its weights; not measured"
    return BuildPlan(
        where=ON_DEVICE if on_device else ANYWHERE,
        peak_bytes=peak,
        peak_graph=worst.graph,
        available_bytes=available,
        fits=fits,
        engine_bytes=engines,
        disk_bytes=engines + shipped + sources,
        note=note,
    )
