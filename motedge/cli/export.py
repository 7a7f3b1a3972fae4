"""`motedge export CHECKPOINT --out BUNDLE`: ONNX graphs of both towers and the VAE encoder."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from motedge.units import format_bytes


def register(subparsers: Any) -> None:
    """Adds the verb."""
    from motedge.export.variants import DEFAULT_VARIANTS

    parser = subparsers.add_parser("export", help="export a checkpoint's towers and VAE encoder as ONNX graphs")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint folder in the hub layout")
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="the bundle folder to write or complete")
    parser.add_argument(
        "--shape-set",
        default="droid",
        metavar="NAME",
        help="droid, av, media-WxH such as media-832x480, or a .toml file (default droid)",
    )
    parser.add_argument(
        "--variants",
        default=",".join(DEFAULT_VARIANTS),
        metavar="LIST",
        help="comma-separated: primitive-fp32 (CPU, the default), primitive-fp16, fused-fp16, fused-bf16; or all",
    )
    parser.add_argument(
        "--extras",
        default="",
        metavar="LIST",
        help="comma-separated groups of graphs beside the policy's: vae-decoder, vae-decoder-stream, vae-encoder-clip, "
        "vae-encoder-stream, reasoner",
    )
    parser.add_argument(
        "--samples",
        default="auto",
        choices=("auto", "graphs", "none"),
        help="sample inputs and outputs to record: what memory and time allow, no whole tick, or none",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exports, or plans with --dry-run."""
    from motedge.errors import EXIT_OK, MissingPackageError

    try:
        import onnx_ir  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(error.name or "torch", extra="export", purpose="to export graphs") from error
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.job import ExportOptions, export_bundle, require_own_folder
    from motedge.export.plan import make_plan
    from motedge.export.shapes import load_shape_set
    from motedge.export.variants import parse_variants

    checkpoint = Checkpoint.open(args.checkpoint)
    extras = tuple(filter(None, (part.strip() for part in args.extras.split(","))))
    options = ExportOptions(load_shape_set(args.shape_set), parse_variants(args.variants), args.samples, extras)
    if args.dry_run:
        checkpoint.check()
        require_own_folder(Path(args.out))
        plan = make_plan(checkpoint, options.shapes, options.variants, options.extras)
        _print_plan({**plan.weight_bytes, **plan.table_bytes}, plan.total_bytes, args.json)
        return EXIT_OK
    report = export_bundle(checkpoint, args.out, options)
    if args.json:
        print(json.dumps({"bundle": str(report.root), "written": report.written, "seconds": report.seconds}, indent=2))
    elif not report.written:
        print(f"{report.root} is up to date")
    else:
        for step, seconds in report.seconds.items():
            print(f"  {step:<28} {seconds:7.1f} s", file=sys.stderr)
        print(f"{report.root}: {len(report.written)} files written")
    return EXIT_OK


def _print_plan(sizes: dict[str, int], total: int, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"files": sizes, "total_bytes": total}, indent=2))
        return
    for name, size in sizes.items():
        print(f"{name:<40} {format_bytes(size):>12}")
    print(f"{'total, graphs included, at most':<40} {format_bytes(total):>12}")
