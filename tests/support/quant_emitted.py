"""Quantized graphs of a scene: written, run, and looked into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx_reference import DTYPES, RMSNormalization
from quant_scene import GEN, QuantScene
from quantized_projection import TRT_FP4DynamicQuantize

from motedge.quant.emission.variant import Emission, plan_emission, write_quantized
from motedge.quant.recipe import load_recipe
from motedge.quant.replay import Forward, repeat_forward
from motedge.runtime.backends.onnxruntime import OnnxRuntimeEngine
from motedge.runtime.engine import EngineOptions
from motedge.runtime.rope import RotaryTable
from motedge.runtime.tables import Tables

Arrays = dict[str, np.ndarray[Any, Any]]


def emit(scene: QuantScene, graph: str, base: str, recipe: str, out: Path) -> Emission:
    """Writes one quantized variant below `out`."""
    parameters = scene.parameters(graph, load_recipe(recipe))
    emission = plan_emission(scene.bundle, graph, base, recipe, parameters)
    write_quantized(scene.bundle, emission, out)
    return emission


def open_emitted(scene: QuantScene, emission: Emission, out: Path) -> OnnxRuntimeEngine:
    """The runtime's own engine of it."""
    contract = scene.bundle.contract(emission.graph)
    return OnnxRuntimeEngine(out / emission.file, contract, emission.dtype, EngineOptions(threads=1))


def run_engine(scene: QuantScene, emission: Emission, out: Path, forward: Forward) -> Arrays:
    """Outputs of one forward of the generator."""
    return repeat_forward(open_emitted(scene, emission, out), forward)


def feeds_of(scene: QuantScene, graph: str) -> Arrays:
    """Real inputs of a graph, fp32."""
    if graph == GEN:
        return {name: np.asarray(value) for name, value in scene.forwards[1].inputs.items()}
    tables, tokens = Tables.open(scene.bundle), scene.prompts[0][0]
    cos, sin = RotaryTable(tables.inv_freq(), scene.bundle.manifest.model["config"]).text(tokens.size)
    return {"embeddings": tables.embeddings(tokens), "cos": cos, "sin": sin}


def probe(scene: QuantScene, emission: Emission, out: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Input and output of every quantized projection inside the graph, fp32: site -> (x, y).

    onnxruntime runs fp32 graphs, onnx's reference evaluator the others: it rounds as a device does, and knows
    FLOAT4E2M1.
    """
    path, places = _with_probes(scene, emission, out)
    feeds = feeds_of(scene, emission.graph)
    on_reference = emission.dtype != "fp32"
    found = _on_reference(scene, emission, path, feeds) if on_reference else _on_onnxruntime(path, feeds)
    return {site: (found[x].astype(np.float32), found[y].astype(np.float32)) for site, (x, y) in places.items()}


def _with_probes(scene: QuantScene, emission: Emission, out: Path) -> tuple[Path, dict[str, tuple[str, str]]]:
    model = onnx.load(str(out / emission.file), load_external_data=False)
    entry = scene.bundle.variant(emission.graph, emission.base)
    clean = onnx.load(str(scene.bundle.path(entry.file)), load_external_data=False)
    inputs = {node.name: node.input[0] for node in clean.graph.node}
    nodes = {node.name: node for node in model.graph.node}
    places = {site: (inputs[f"{site}/MatMul"], nodes[f"{site}/MatMul"].output[0]) for site in emission.parameters}
    known = {value.name for value in model.graph.output}
    for name in dict.fromkeys(name for pair in places.values() for name in pair if name not in known):
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    path = (out / emission.file).with_suffix(".probe.onnx")
    path.write_bytes(model.SerializeToString())
    return path, places


def _on_onnxruntime(path: Path, feeds: Arrays) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _on_reference(scene: QuantScene, emission: Emission, path: Path, feeds: Arrays) -> Arrays:
    evaluator = ReferenceEvaluator(str(path), new_ops=[RMSNormalization, TRT_FP4DynamicQuantize])
    kinds = {spec.name: spec.dtype for spec in scene.bundle.contract(emission.graph).inputs}
    typed = {
        name: value.astype(DTYPES[emission.dtype if kinds[name] == "graph" else kinds[name]])
        for name, value in feeds.items()
    }
    return dict(zip(evaluator.output_names, evaluator.run(None, typed), strict=True))
