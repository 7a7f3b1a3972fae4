"""The manifest of an export, and the facts about a graph that it records."""

from __future__ import annotations

import collections
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

import motedge
from motedge.bundle import GraphEntry, Manifest
from motedge.export.journal import Journal
from motedge.export.plan import ExportPlan
from motedge.export.policy_defaults import policy_defaults
from motedge.export.reasoner_graphs import VISION_ENCODER, vision_of
from motedge.export.relu2 import Relu2Range, unproven_layers
from motedge.export.sound_graphs import SOUND_DECODER, sound_of

# Packages that decide what the graphs look like
TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript")
_GRAPH_KEY, _RELU2_KEY = "motedge.graph", "motedge.relu2_ranges"


def tool_versions() -> dict[str, str]:
    """Versions of everything that made the graphs."""
    return {"motedge": motedge.__version__, **{name: importlib.metadata.version(name) for name in TOOLS}}


def graph_metadata(graph: str, ranges: Sequence[Relu2Range]) -> dict[str, str]:
    """The metadata that an ONNX file carries itself."""
    metadata = {_GRAPH_KEY: graph}
    if ranges:
        metadata[_RELU2_KEY] = json.dumps([asdict(r) for r in ranges])
    return metadata


def graph_facts(path: Path) -> dict[str, Any]:
    """Counts of one ONNX file, read without its weights: nodes, operators, parameters, fp16 ranges."""
    model = onnx.load(str(path), load_external_data=False)
    operators = collections.Counter(node.op_type for node in model.graph.node)
    weights = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    facts: dict[str, Any] = {
        "nodes": len(model.graph.node),
        "operators": dict(operators.most_common()),
        "parameters": sum(math.prod(t.dims) for t in weights),
        "weights": len(weights),
    }
    for entry in model.metadata_props:
        if entry.key == _RELU2_KEY:
            facts["relu2_ranges"] = json.loads(entry.value)
    return facts


def manifest(
    plan: ExportPlan,
    journal: Journal,
    graphs: Mapping[str, GraphEntry],
    tables: Mapping[str, Any],
    special_tokens: Mapping[str, int],
    samples: Mapping[str, Any] | None = None,
) -> Manifest:
    """The manifest of everything that the journal has by now."""
    checkpoint = plan.checkpoint
    return Manifest(
        model={
            "family": checkpoint.family,
            "variant": checkpoint.variant,
            "revision": checkpoint.revision,
            "config": checkpoint.config.to_dict(),
            "checkpoint": {"name": checkpoint.root.resolve().name, "fingerprint": journal.origin},
            "special_tokens": dict(special_tokens),
            **({} if checkpoint.precision == "bf16" else {"precision": checkpoint.precision}),
            **_vision(plan, graphs),
            **_sound(plan, graphs),
        },
        shape_set=plan.shapes.to_dict(),
        policy=policy_defaults(checkpoint, plan.shapes),
        graphs=dict(graphs),
        files=journal.bundle_files(),
        tables=dict(tables),
        samples=dict(samples or {}),
        tools={**tool_versions(), "python": platform.python_version()},
        notes=(*_notes(plan, graphs), *_range_notes(graphs)),
    )


def _vision(plan: ExportPlan, graphs: Mapping[str, GraphEntry]) -> dict[str, Any]:
    """What the host must know to give images to the vision encoder, where there is one."""
    if VISION_ENCODER.name not in graphs:
        return {}
    return {"vision_config": vision_of(plan.checkpoint).to_dict()}


def _sound(plan: ExportPlan, graphs: Mapping[str, GraphEntry]) -> dict[str, Any]:
    """What the host must know of the waveform, where the bundle makes one."""
    if SOUND_DECODER.name not in graphs:
        return {}
    return {"sound_config": sound_of(plan.checkpoint).to_dict()}


def _range_notes(graphs: Mapping[str, GraphEntry]) -> list[str]:
    notes = []
    for name, entry in graphs.items():
        for variant_id, variant in entry.variants.items():
            layers = unproven_layers([Relu2Range(**r) for r in variant.facts.get("relu2_ranges", [])])
            if layers:
                listed = ", ".join(map(str, layers))
                notes.append(f"{name} {variant_id}: activations of layers {listed} are not proven to fit fp16")
    return notes


def _notes(plan: ExportPlan, graphs: Mapping[str, GraphEntry]) -> tuple[str, ...]:
    notes = []
    provenance = plan.checkpoint.provenance
    if provenance is not None and provenance.source == "synthetic":
        notes.append("weights are random: numbers prove paths, not quality")
    if plan.checkpoint.config.sound_gen and SOUND_DECODER.name not in graphs:
        notes.append("sound is left out: --extras sound includes it")
    return tuple(notes)
