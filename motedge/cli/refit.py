"""`motedge refit BUNDLE --weights NEW --target T`: fine-tuned weights into engines that are built."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from motedge.units import format_bytes

if TYPE_CHECKING:
    from motedge.bundle import Bundle
    from motedge.targets.refit.job import Refit, RefitReport


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "refit",
        help="put fine-tuned weights into built engines",
        description="Exchange the weights of engines that were built with --refittable or --strip-weights. The new "
        "weights are a checkpoint of the same shapes (an adapter is merged by motedge checkpoint merge, a framework "
        "checkpoint turned by motedge checkpoint convert), or a bundle that was exported from one.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="the bundle with the engines")
    parser.add_argument("--weights", required=True, metavar="NEW", help="a checkpoint, or a bundle exported from it")
    parser.add_argument("--out", metavar="BUNDLE2", help="where the checkpoint's own bundle is written")
    parser.add_argument("--target", required=True, metavar="ID", help="whose engines: motedge targets list")
    parser.add_argument("--graphs", metavar="LIST", help="comma-separated (default: all that were built)")
    parser.add_argument(
        "--trust-host-code", action="store_true", help="let version-compatible engines run the code that they hold"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Refits, or checks with --dry-run."""
    from motedge.bundle import Bundle
    from motedge.errors import EXIT_OK
    from motedge.targets.catalog import load_target
    from motedge.targets.refit.job import plan_refit, refit_engines

    target = load_target(args.target)
    old = Bundle.open(args.bundle)
    new = _new_bundle(old, args)
    graphs = None if args.graphs is None else [name for name in args.graphs.split(",") if name]
    refits = plan_refit(old, new, target, graphs=graphs, trust_host_code=args.trust_host_code)
    if args.dry_run:
        _print_plan(refits, args.json)
        return EXIT_OK
    report = refit_engines(refits, new, target, trust_host_code=args.trust_host_code)
    _deliver(report, args.json)
    return EXIT_OK


def _new_bundle(old: Bundle, args: argparse.Namespace) -> Bundle:
    """The bundle with the new weights: the one that was given, or the checkpoint's, which is exported first."""
    from pathlib import Path

    from motedge.bundle import Bundle
    from motedge.bundle.folder import MANIFEST
    from motedge.errors import UsageError

    source = Path(args.weights)
    if (source / MANIFEST).is_file():
        if args.out:
            raise UsageError("--out is for checkpoints", fix="leave it out: engines go into the bundle that was given")
        return Bundle.open(source)
    if (source / ".metadata").is_file():
        fix = f"motedge checkpoint convert {source} --base CHECKPOINT --out CHECKPOINT2, and give that"
        raise UsageError(f"{source} is a framework checkpoint", fix=fix)
    if source.suffix == ".safetensors" or (source / "adapter_config.json").is_file():
        fix = f"motedge checkpoint merge CHECKPOINT {source} --out CHECKPOINT2, and give that"
        raise UsageError(f"{source} is an adapter", fix=fix)
    if not args.out or args.dry_run:
        raise UsageError(
            "a checkpoint needs a bundle of its own first",
            fix=f"--out BUNDLE2 exports it; or motedge export {source} --out BUNDLE2, and --weights BUNDLE2",
        )
    return _export(old, source, args.out)


def _export(old: Bundle, source: Any, out: str) -> Bundle:
    from motedge.bundle import Bundle
    from motedge.errors import MissingPackageError

    try:
        import onnx_ir  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(error.name or "torch", extra="export", purpose="to export a checkpoint") from error
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.job import ExportOptions, export_bundle
    from motedge.export.shapes import ShapeSet
    from motedge.export.variants import VARIANTS

    variants = {n for graph in old.manifest.graphs.values() for n, v in graph.variants.items() if v.recipe is None}
    shapes = ShapeSet.from_dict(old.manifest.shape_set)
    export_bundle(Checkpoint.open(source), out, ExportOptions(shapes, [VARIANTS[name] for name in sorted(variants)]))
    return Bundle.open(out)


def _print_plan(refits: list[Refit], as_json: bool) -> None:
    rows = [
        {
            "graph": r.engine.graph,
            "variant": r.engine.variant,
            "file": r.planned.file,
            "up_to_date": r.planned.up_to_date,
        }
        for r in refits
    ]
    if as_json:
        print(json.dumps({"engines": rows}, indent=2))
        return
    for row in rows:
        print(f"{'up to date' if row['up_to_date'] else 'to refit':<12}{row['file']}")


def _deliver(report: RefitReport, as_json: bool) -> None:
    if as_json:
        document = {
            "folder": str(report.files.folder),
            "written": [engine.file for engine in report.written],
            "skipped": [engine.file for engine in report.skipped],
        }
        print(json.dumps(document, indent=2))
        return
    for engine in report.written:
        print(f"{engine.file}: {format_bytes(engine.bytes)}, {engine.seconds:.1f} s")
    if not report.written:
        print(f"{report.files.folder}: up to date")
