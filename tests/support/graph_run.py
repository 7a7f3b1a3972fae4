"""Running one graph of a bundle, on onnxruntime or as its torch module, on inputs of any size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from diffusers_oracle import Request
from tiny import MINI

from motedge.bundle import Bundle
from motedge.checkpoint.reader import Checkpoint
from motedge.export.graphs import GRAPHS
from motedge.export.torch_engine import TorchEngine
from motedge.export.variants import REFERENCE
from motedge.runtime.backends import open_engine
from motedge.runtime.engine import Array, Engine
from motedge.runtime.rope import GenLayout, RotaryTable
from motedge.runtime.tables import Tables

Arrays = dict[str, Array]


def torch_engine(checkpoint: Path, graph: str) -> TorchEngine:
    """The fp32 torch module of a graph, mini shapes."""
    opened, spec = Checkpoint.open(checkpoint), GRAPHS[graph]
    return TorchEngine(spec.module(opened, MINI, REFERENCE), spec.contract(opened.config, MINI))


def run_graph(engine: Engine, inputs: Mapping[str, Array]) -> Arrays:
    """Outputs by name; dynamic sizes are read off the inputs."""
    dims = {}
    for spec in engine.contract.inputs:
        dims.update({d: n for d, n in zip(spec.dims, inputs[spec.name].shape, strict=True) if isinstance(d, str)})
    context = engine.context({letter: dims[letter] for letter in engine.contract.profile})
    for name, value in inputs.items():
        context.set_input(name, np.ascontiguousarray(value, np.float32))
    context.run()
    return {spec.name: context.output(spec.name).copy() for spec in engine.contract.outputs}


def und_inputs(bundle: Bundle, tokens: list[int]) -> Arrays:
    """Inputs of und_prefill for a prompt."""
    tables = Tables.open(bundle)
    cos, sin = RotaryTable(tables.inv_freq(), bundle.manifest.model["config"]).text(len(tokens))
    return {"embeddings": tables.embeddings(np.array(tokens)), "cos": cos, "sin": sin}


def gen_inputs(bundle: Bundle, request: Request, t: float, und_kv: Array, raw_dim: int = 64) -> Arrays:
    """Inputs of gen_step for a packed sample."""
    tables = Tables.open(bundle)
    rotary = RotaryTable(tables.inv_freq(), bundle.manifest.model["config"])
    frames, rows = request.vision.shape[1], request.action.shape[0]
    layout = GenLayout(
        len(request.tokens), frames, *MINI.grid, rows, request.fps, request.fps, request.action_start_offset
    )
    cos, sin = rotary.generator(layout)
    weights = tables.embodiment_weights(request.domain_id, raw_dim)
    vision_noisy, action_noisy = np.ones(frames, np.float32), np.ones(rows, np.float32)
    vision_noisy[request.clean_frames], action_noisy[request.clean_rows] = 0, 0
    return {
        "vision": request.vision.numpy(),
        "action": request.action.numpy(),
        "vision_noisy": vision_noisy,
        "action_noisy": action_noisy,
        "t": np.array([t], np.float32),
        "cos": cos,
        "sin": sin,
        "und_kv": und_kv,
        "action_in_weight": weights.in_weight,
        "action_in_bias": weights.in_bias,
        "action_out_weight": weights.out_weight,
        "action_out_bias": weights.out_bias,
    }


def velocity(bundle: Bundle, request: Request, t: float, raw_dim: int = 64) -> tuple[Array, Array]:
    """Velocities of vision and action by und_prefill and gen_step on onnxruntime."""
    und_kv = run_graph(open_engine(bundle, "und_prefill"), und_inputs(bundle, request.tokens))["und_kv"]
    outputs = run_graph(open_engine(bundle, "gen_step"), gen_inputs(bundle, request, t, und_kv, raw_dim))
    return outputs["vision_velocity"], outputs["action_velocity"]
