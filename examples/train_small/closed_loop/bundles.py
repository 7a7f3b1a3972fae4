"""The bundles that drive: the committed checkpoint exported, the same with random weights, and what they weigh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from motedge.bundle import Bundle
from motedge.errors import UsageError
from motedge.runtime.backends import choose_variant, require_recipe

HERE = Path(__file__).resolve().parents[2]
_TOWERS = ("und_prefill", "gen_step")
CHECKPOINT, SHAPES = HERE / "small_road", HERE / "train_small" / "shapes.toml"


def export_small(out: Path, checkpoint: Path = CHECKPOINT, variants: str = "primitive-fp32") -> Path:
    """Exports a small checkpoint into `out`, unless that is its bundle already.

    Raises:
        CheckpointError, HostError: as `motedge export`.
        UsageError: `out` is a bundle of another checkpoint.
    """
    from motedge.bundle.folder import MANIFEST
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.job import ExportOptions, export_bundle
    from motedge.export.shapes import load_shape_set
    from motedge.export.variants import parse_variants

    opened = Checkpoint.open(checkpoint)
    if not (out / MANIFEST).is_file():
        options = ExportOptions(load_shape_set(str(SHAPES)), parse_variants(variants), "none")
        export_bundle(opened, out, options)
    made_from = Bundle.open(out).manifest.model.get("checkpoint", {}).get("fingerprint")
    if made_from != opened.fingerprint():
        raise UsageError(
            f"{out} was exported from another checkpoint",
            expected=f"fingerprint {opened.fingerprint()[:12]} of {checkpoint.name}",
            got=str(made_from)[:12],
            fix="take another --work folder",
        )
    return out


def make_untrained(out: Path, seed: int = 0) -> Path:
    """Writes a checkpoint of the small model's shapes with random weights, towers and VAE, unless it is there.

    What an untrained model is worth: the same architecture, prompts and sampler, nothing learned.
    """
    import torch

    from examples.train_small.model.checkpoint import write_small
    from examples.train_small.model.preset import small_preset
    from motedge.checkpoint.keys import Shape, transformer_shapes
    from motedge.checkpoint.policy_metadata import PolicyMetadata
    from motedge.checkpoint.random_weights import random_chunks
    from motedge.checkpoint.reader import Checkpoint
    from motedge.checkpoint.staging import staged_folder
    from motedge.checkpoint.vae_keys import vae_shapes

    if out.exists():
        return out
    policy = Checkpoint.open(CHECKPOINT).policy
    if not isinstance(policy, PolicyMetadata):
        raise UsageError(f"{CHECKPOINT} does not say how it acts")
    preset = small_preset()

    def drawn(shapes: dict[str, Shape]) -> Iterator[tuple[str, torch.Tensor]]:
        for key, shape in shapes.items():
            bits = np.concatenate(list(random_chunks(key, shape, seed))).astype(np.uint32) << 16
            yield key, torch.from_numpy(bits.view(np.float32).reshape(shape).copy())

    with staged_folder(out) as root:
        towers, vae = transformer_shapes(preset.transformer), vae_shapes(preset.vae)
        write_small(root, preset, dict(drawn(towers)), dict(drawn(vae)), policy, seed=seed)
    return out


def towers_mb(path: Path, recipe: Optional[str] = None, variant: Optional[str] = None) -> float:
    """MB (1e6 bytes) of both towers' weights as they lie in a bundle, in the variant that the host's engine takes.

    Raises:
        BundleError, UsageError: as `load_generator`.
    """
    bundle, files = Bundle.open(path), set()
    require_recipe(bundle, recipe)
    for graph in _TOWERS:
        chosen = choose_variant(bundle, graph, backend="onnxruntime", variant=variant, recipe=recipe)
        files.update(bundle.manifest.graphs[graph].variants[chosen].weights)
    return round(sum((path / name).stat().st_size for name in files) / 1e6, 3)


def gate_verdict(path: Path, recipe: Optional[str]) -> Optional[dict[str, Any]]:
    """What `motedge quantize` said of a recipe: the gate's status, and relative L2 errors of what decided.

    None where nothing is quantized, or the bundle came without its report.

    Raises:
        BundleError: the report is damaged.
    """
    from motedge.quant.fidelity.report import JSON, read_report

    folder = path / "fidelity" / str(recipe)
    if recipe is None or not (folder / JSON).is_file():
        return None
    verdict = read_report(folder).verdict
    errors = {entry.what: round(entry.relative_l2, 5) for entry in verdict.deciding if entry.relative_l2 is not None}
    return {"status": verdict.status, "max_relative_l2": verdict.max_relative_l2, "relative_l2": errors}
