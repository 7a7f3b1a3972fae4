"""Memory and work of the video VAE's graphs at full size, from the graphs alone: no weights, no GPU.

    python benchmarks/vae_memory.py [--shape-set av] [--frames 33 61 121] [--json benchmarks/results/vae_memory.json]

Activations are the largest sum of tensors that are alive at once, with one buffer a kernel after fusion, as
`motedge plan` counts them.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from conditions import SCHEMA, collect_conditions

from motedge.checkpoint.presets import preset
from motedge.export.describe import graph_metadata
from motedge.export.extras import EXTRAS, extra_graphs
from motedge.export.graphs import GraphSpec
from motedge.export.onnx_file import attach_weights, write_model
from motedge.export.shapes import ShapeSet, load_shape_set
from motedge.export.variants import VARIANTS
from motedge.export.weights import DTYPES, place_weights, plan_weights
from motedge.files import write_json
from motedge.targets.graph.kernels import fused
from motedge.targets.graph.liveness import activation_peak
from motedge.targets.graph.read import parse_graph
from motedge.targets.graph.values import Values
from motedge.targets.graph.work import graph_work

VARIANT = VARIANTS["fused-bf16"]
NOTE = (
    "counted, not measured: liveness and work of each graph; caches_gb is what a chunk leaves for the next, of which "
    "the runtime holds two"
)


def measure(spec: GraphSpec, shapes: ShapeSet, latent_frames: int, folder: Path) -> dict[str, Any]:
    """One graph at one number of latent frames."""
    # Only the VAE's configuration is asked for
    checkpoint: Any = SimpleNamespace(vae_config=preset("edge", "full").vae)
    module = spec.empty_module(checkpoint, shapes, VARIANT)
    slots = place_weights(spec.name, DTYPES[VARIANT.dtype], plan_weights(module))
    contract = spec.contract_of(checkpoint, shapes)
    path = folder / f"{spec.name}.onnx"
    if not path.exists():
        model = spec.assemble(module, contract, VARIANT)
        attach_weights(model, slots)
        write_model(model, path, graph_metadata(spec.name, ()))
    sizes = {**contract.sizes, "T": latent_frames, "F": 4 * latent_frames - 3}
    inputs = {tensor.name: tensor.shape(sizes) for tensor in contract.inputs}
    values = Values(parse_graph(spec.name, VARIANT.dtype, path, inputs))
    kernels = fused(values)
    caches = [t for t in contract.outputs if t.name.startswith("next_cache_")]
    return {
        "graph": spec.name,
        "latent_frames": latent_frames if contract.profile else 1,
        "activations_gb": activation_peak(values, kernels, in_place=False).bytes / 1e9,
        "caches_gb": 2 * sum(math.prod(t.shape(sizes)) for t in caches) / 1e9,
        "tflop": graph_work(values, kernels).flops / 1e12,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape-set", default="av")
    parser.add_argument("--frames", type=int, nargs="+", default=[33, 61, 121], help="4 k + 1, for the whole forms")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    conditions = collect_conditions()
    latents = [1 + (frames - 1) // 4 for frames in options.frames]
    given = load_shape_set(options.shape_set)
    shapes = dataclasses.replace(given, max_latent_frames=max(*latents, given.max_latent_frames))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for spec in extra_graphs(name for name in EXTRAS if name.startswith("vae-")):
            for count in latents if spec.shares is None else latents[:1]:
                rows.append(measure(spec, shapes, count, Path(folder)))
                row = rows[-1]
                print(
                    f"{row['graph']:<18} T {row['latent_frames']:>3}  activations {row['activations_gb']:7.2f} GB  "
                    f"caches {row['caches_gb']:5.2f} GB  {row['tflop']:8.2f} TFLOP"
                )
    if options.json:
        head = {"schema": SCHEMA, "benchmark": "vae_memory", "conditions": conditions, "note": NOTE}
        write_json(options.json, {**head, "variant": VARIANT.id, "shape_set": shapes.to_dict(), "rows": rows})


if __name__ == "__main__":
    main()
