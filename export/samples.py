"""Sample inputs and expected outputs that travel with a bundle, so that a device can check itself.

Inputs are drawn from a seed; K and V come from the und tower itself and angles from real positions. Expected outputs
come from an fp32 torch forward of our modules, which tests hold against the reference implementation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motedge.checkpoint.reader import Checkpoint
from motedge.export.extras import find_graph
from motedge.export.reasoner_graphs import UND, VISION_ENCODER
from motedge.export.reasoner_samples import reasoner_inputs
from motedge.export.shapes import ShapeSet
from motedge.export.torch_engine import TorchEngine
from motedge.export.variants import REFERENCE
from motedge.files import atomic_path
from motedge.runtime.engine import Array, FloatArray
from motedge.runtime.rope import GenLayout, RotaryTable
from motedge.runtime.tables import Tables

SEED = 20260323
PROMPT_TOKENS = 16
# The smallest request that has both a clean and a noisy frame and row
SAMPLE_FRAMES, SAMPLE_ROWS = 2, 3


@dataclass(frozen=True)
class SampleScene:
    """What all samples of a bundle are made from."""

    checkpoint: Checkpoint
    shapes: ShapeSet
    tables: Tables

    def engine(self, graph: str) -> TorchEngine:
        """A graph's fp32 torch module, weights loaded, as an engine."""
        spec = find_graph(graph)
        contract = spec.contract_of(self.checkpoint, self.shapes)
        return TorchEngine(spec.module(self.checkpoint, self.shapes, REFERENCE), contract)

    def tokens(self, count: int, offset: int = 0) -> Array:
        """Token ids, int64 [count]; the same for the same vocabulary."""
        random = np.random.RandomState(SEED + offset)
        return random.randint(0, self.checkpoint.config.vocab_size, count, dtype=np.int64)

    def image(self) -> FloatArray:
        """A smooth canvas with edges, fp32 [1, 3, Y, X] in [-1, 1], which compresses well."""
        rows, columns = self.shapes.canvas
        y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) / np.float32(max(rows, columns))
        shade = np.stack([x, y, np.float32(1) - x]) * 2 - 1
        shade[:, (y * 8).astype(int) % 2 == (x * 8).astype(int) % 2] *= np.float32(0.25)
        pixels = np.round(shade * 127.5) / np.float32(127.5)  # what an 8-bit camera would give
        return np.ascontiguousarray(pixels[None], dtype=np.float32)

    def masks(self, frames: int, rows: int) -> tuple[FloatArray, FloatArray]:
        """vision_noisy [T] and action_noisy [A]: the first frame and the state row are clean."""
        vision, action = np.ones(frames, np.float32), np.ones(rows, np.float32)
        vision[0] = action[0] = 0
        return vision, action

    def und_inputs(self) -> dict[str, Array]:
        """Inputs of und_prefill."""
        cos, sin = self.rotary().text(PROMPT_TOKENS)
        return {"embeddings": self.tables.embeddings(self.tokens(PROMPT_TOKENS)), "cos": cos, "sin": sin}

    def gen_inputs(self, und_kv: FloatArray) -> dict[str, Array]:
        """Inputs of gen_step for a small request, domain 8 (DROID) or the first one that the model has."""
        config, (rows, columns) = self.checkpoint.config, self.shapes.grid
        random = np.random.RandomState(SEED)
        layout = GenLayout(PROMPT_TOKENS, SAMPLE_FRAMES, rows, columns, SAMPLE_ROWS, self.shapes.fps, self.shapes.fps)
        cos, sin = self.rotary().generator(layout)
        domain = min(8, config.num_embodiment_domains - 1)
        weights = self.tables.embodiment_weights(domain, config.action_dim)
        vision_noisy, action_noisy = self.masks(SAMPLE_FRAMES, SAMPLE_ROWS)
        vision = random.standard_normal((config.latent_channel, SAMPLE_FRAMES, rows, columns))
        return {
            "vision": vision.astype(np.float32),
            "action": random.standard_normal((SAMPLE_ROWS, config.action_dim)).astype(np.float32),
            "vision_noisy": vision_noisy,
            "action_noisy": action_noisy,
            "t": np.array([937.0], np.float32),
            "cos": cos,
            "sin": sin,
            "und_kv": und_kv,
            "action_in_weight": weights.in_weight,
            "action_in_bias": weights.in_bias,
            "action_out_weight": weights.out_weight,
            "action_out_bias": weights.out_bias,
        }

    def rotary(self) -> RotaryTable:
        """Angles of this model."""
        return RotaryTable(self.tables.inv_freq(), self.checkpoint.config.to_dict())


def record_graph(scene: SampleScene, graph: str, und_kv: FloatArray | None) -> dict[str, Array]:
    """Runs one graph's torch module on its sample inputs.

    Args:
        scene: what to sample from.
        graph: "und_prefill", "gen_step", "vae_encoder", "und" or "vision_encoder".
        und_kv: the output of und_prefill, for gen_step.

    Returns:
        Arrays by "in.<tensor>" and "out.<tensor>", fp32.
    """
    engine = scene.engine(graph)
    inputs: Mapping[str, Array]
    if graph == "und_prefill":
        inputs, dims = scene.und_inputs(), {"S": PROMPT_TOKENS}
    elif graph == "gen_step":
        if und_kv is None:
            raise ValueError("gen_step needs the K and V of und_prefill")
        inputs = scene.gen_inputs(und_kv)
        dims = {"T": SAMPLE_FRAMES, "A": SAMPLE_ROWS, "U": PROMPT_TOKENS, "N": inputs["cos"].shape[0]}
    elif graph in (UND.name, VISION_ENCODER.name):
        inputs, dims = reasoner_inputs(scene, graph)
    else:
        inputs, dims = {"image": scene.image()}, {}
    context = engine.context(dims)
    for name, value in inputs.items():
        context.set_input(name, value)
    context.run()
    outputs = {f"out.{spec.name}": context.output(spec.name).copy() for spec in engine.contract.outputs}
    engine.close()
    return {**{f"in.{name}": value for name, value in inputs.items()}, **outputs}


def write_sample(target: Path, arrays: Mapping[str, Array]) -> None:
    """Writes arrays as a compressed .npz, atomically."""
    with atomic_path(target) as partial, open(partial, "wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **{name: np.asarray(value) for name, value in arrays.items()})
