"""What `motedge refit --weights` takes, as a bundle: a bundle, a checkpoint, a framework checkpoint or an adapter."""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motedge.errors import BundleError, MissingPackageError, UsageError

if TYPE_CHECKING:
    from motedge.bundle import Bundle
    from motedge.runtime.engine_files import EngineFile

_FRAMEWORK_INDEX, _ADAPTER_CONFIG = ".metadata", "adapter_config.json"
_ADAPTER_FILES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")


def bundle_of_weights(old: Bundle, engines: list[EngineFile], args: argparse.Namespace) -> Bundle:
    """The bundle with the new weights: the one that was given, or that of a checkpoint, which is exported first.

    Args:
        old: says which variants and shapes are exported.
        engines: those that are to be refitted.
        args: weights, base, out, dry_run.

    Raises:
        UsageError: options that do not go together, or an engine of a quantized variant.
        CheckpointError: weights that do not fit the model.
    """
    from motedge.bundle import Bundle
    from motedge.bundle.folder import MANIFEST

    source = Path(args.weights)
    if (source / MANIFEST).is_file():
        if args.out or args.base:
            option = "--out" if args.out else "--base"
            fix = "leave it out: engines go into the bundle that was given"
            raise UsageError(f"{option} is for checkpoints, and {source} is a bundle", fix=fix)
        return Bundle.open(source)
    if not args.out or args.dry_run:
        raise UsageError(
            "new weights need a bundle of their own first",
            fix=f"--out BUNDLE2 exports it; or motedge export {source} --out BUNDLE2, and --weights BUNDLE2",
        )
    _require_unquantized(old, engines, args.out)
    _require_torch()
    with _checkpoint_of(source, args.base, Path(args.out)) as checkpoint:
        return _export(old, checkpoint, args.out)


def _require_unquantized(old: Bundle, engines: list[EngineFile], out: str) -> None:
    for engine in engines:
        recipe = old.variant(engine.graph, engine.variant).recipe
        if recipe is not None:
            raise UsageError(
                f"{engine.file} is quantized ({recipe}), and a checkpoint has no ranges for that",
                why="scales follow from the weights and what they compute: those of the old weights would be wrong",
                fix=f"motedge export CHECKPOINT --out {out}; motedge quantize {out} --recipe {recipe} "
                "--calibration DATA --out BUNDLE3; and --weights BUNDLE3",
            )


@contextlib.contextmanager
def _checkpoint_of(source: Path, base: Any, out: Path) -> Iterator[Path]:
    """A checkpoint in the published layout. One that had to be made lies beside `out`, until it is exported."""
    adapter = source.suffix == ".safetensors" or any((source / n).is_file() for n in (_ADAPTER_CONFIG, *_ADAPTER_FILES))
    # Safetensors that lie about without a model's folders: of the framework, or of the reasoner alone
    loose = not adapter and not (source / "transformer").exists() and any(source.glob("*.safetensors*"))
    framework = loose or (source / _FRAMEWORK_INDEX).is_file()
    if not framework and not adapter:
        if base:
            raise UsageError(f"--base is for adapters and framework checkpoints, and {source} is neither")
        yield source
        return
    verb, kind = ("convert", "a framework checkpoint") if framework else ("merge", "an adapter")
    if not base:
        made = f"convert {source} --base CHECKPOINT" if framework else f"merge CHECKPOINT {source}"
        raise UsageError(
            f"{source} is {kind}",
            expected="the checkpoint that was trained on, too",
            fix=f"--base CHECKPOINT; or motedge checkpoint {made} --out CHECKPOINT2, and --weights CHECKPOINT2",
        )
    from motedge.checkpoint.convert import convert_checkpoint
    from motedge.checkpoint.lora import merge_adapter
    from motedge.checkpoint.reader import Checkpoint

    made_here = out.with_name(f"{out.name}.checkpoint")
    if made_here.exists():
        raise UsageError(f"{made_here} is in the way", fix=f"delete it: motedge checkpoint {verb} writes it anew")
    try:
        if framework:
            convert_checkpoint(source, Checkpoint.open(base), made_here)
        else:
            merge_adapter(Checkpoint.open(base), source, made_here)
        yield made_here
    finally:
        shutil.rmtree(made_here, ignore_errors=True)


def _export(old: Bundle, source: Path, out: str) -> Bundle:
    from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.job import ExportOptions, export_bundle
    from motedge.export.shapes import ShapeSet
    from motedge.export.variants import TEST_VARIANTS, VARIANTS

    checkpoint = Checkpoint.open(source)
    graphs = [entry for name, entry in old.manifest.graphs.items() if name not in WEIGHTLESS_GRAPHS]
    known = {n for graph in graphs for n, v in graph.variants.items() if v.recipe is None}
    try:
        shapes = ShapeSet.from_dict(old.manifest.shape_set)
        variants = [{**VARIANTS, **TEST_VARIANTS}[name] for name in sorted(known)]
    except (TypeError, KeyError) as error:
        raise BundleError(
            f"{old.root} does not say how it was exported",
            expected="a shape set and variants that this version knows",
            got=str(error),
            fix=f"motedge export {source} --out BUNDLE2 with the options of that time, and --weights BUNDLE2",
        ) from error
    export_bundle(checkpoint, out, ExportOptions(shapes, variants))
    return Bundle.open(out)


def _require_torch() -> None:
    try:
        import onnx_ir  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(error.name or "torch", extra="export", purpose="to export a checkpoint") from error
