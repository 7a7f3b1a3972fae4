"""One forward of the generator on the same inputs: diffusers' transformer, our module in torch eager, our graph.

Tells how much of a tick's ratio is the structure (the reasoner tower left out of every forward) and how much the
kernels of the library that runs the graph.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from diffusers_policy import PeerStart
from interleave import Way
from policy_scene import Scene, open_graph, torch_engine

from motedge.bundle import Bundle
from motedge.checkpoint.reader import Checkpoint
from motedge.runtime.engine import Array, Context, Engine, IntArray
from motedge.runtime.rope import GenLayout, RotaryTable
from motedge.runtime.tables import Tables

# The first timestep of the policy's schedule
_T = 999.0


def forward_ways(scene: Scene) -> dict[str, Way]:
    """Name -> way; every way returns its velocities (vision [C, T, h, w], action [A, raw_dim]), clean ones left out."""
    bundle, start = Bundle.open(scene.bundle), scene.peer.start(scene.observation)
    raw_dim = len(scene.policy.embodiment.fields)

    def diffusers_forward() -> tuple[Array, Array]:
        v, a = scene.peer.forward(start.conditional, start.vision, start.action, _T)
        return v.reshape(start.vision.shape[1:])[:, 1:].numpy(), a[1:, :raw_dim].numpy()

    inputs = _inputs(scene, bundle, start)
    checkpoint = Checkpoint.open(scene.checkpoint)
    engines = {
        "our gen_step in torch, fused attention": torch_engine(checkpoint, scene.shapes, "gen_step", "fused"),
        "our gen_step in torch, primitive attention": torch_engine(checkpoint, scene.shapes, "gen_step", "primitive"),
        "our gen_step in onnxruntime": open_graph(bundle, "gen_step", scene.threads),
    }
    ways = {"diffusers transformer": Way(diffusers_forward)}
    return {**ways, **{name: Way(_ours(engine, inputs, raw_dim)) for name, engine in engines.items()}}


def _ours(engine: Engine, inputs: dict[str, Array], raw_dim: int) -> Callable[[], tuple[Array, Array]]:
    vision, action = inputs["vision"], inputs["action"]
    dims = {"T": vision.shape[1], "A": action.shape[0], "U": inputs["und_kv"].shape[3], "N": inputs["cos"].shape[0]}
    context: Context = engine.context(dims)
    for name, value in inputs.items():
        context.set_input(name, value)

    def forward() -> tuple[Array, Array]:
        context.run()
        return context.output("vision_velocity")[:, 1:], context.output("action_velocity")[1:, :raw_dim]

    return forward


def _inputs(scene: Scene, bundle: Bundle, start: PeerStart) -> dict[str, Array]:
    """The request's first step as gen_step takes it, K and V of the prompt from und_prefill."""
    policy, tables = scene.policy, Tables.open(bundle)
    rotary = RotaryTable(tables.inv_freq(), bundle.manifest.model["config"])
    tokens = start.conditional["input_ids"].numpy()
    frames, rows, columns = policy.shape.latent
    layout = GenLayout(tokens.size, frames, rows, columns, policy.shape.rows, policy.shape.fps, policy.shape.fps)
    cos, sin = rotary.generator(layout)
    weights = tables.embodiment_weights(policy.embodiment.domain_id, len(policy.embodiment.fields))
    vision_noisy, action_noisy = np.ones(frames, np.float32), np.ones(policy.shape.rows, np.float32)
    vision_noisy[0] = action_noisy[0] = 0
    return {
        "vision": start.vision[0].numpy(),
        "action": start.action.numpy(),
        "vision_noisy": vision_noisy,
        "action_noisy": action_noisy,
        "t": np.array([_T], np.float32),
        "cos": cos,
        "sin": sin,
        "und_kv": _prefill(open_graph(bundle, "und_prefill", scene.threads), tables, rotary, tokens),
        "action_in_weight": weights.in_weight,
        "action_in_bias": weights.in_bias,
        "action_out_weight": weights.out_weight,
        "action_out_bias": weights.out_bias,
    }


def _prefill(engine: Engine, tables: Tables, rotary: RotaryTable, tokens: IntArray) -> Array:
    context = engine.context({"S": tokens.size})
    cos, sin = rotary.text(tokens.size)
    for name, value in {"embeddings": tables.embeddings(tokens), "cos": cos, "sin": sin}.items():
        context.set_input(name, value)
    context.run()
    return context.output("und_kv").copy()
