"""`motedge refit BUNDLE --weights NEW --target T`: fine-tuned weights into engines that are built."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from motedge.units import format_bytes

if TYPE_CHECKING:
    from motedge.targets.refit.job import Refit, RefitReport


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "refit",
        help="put fine-tuned weights into built engines",
        description="Exchange the weights of engines that were built with --refittable or --strip-weights. The new "
        "weights are a checkpoint of the same shapes, an adapter (LoRA) or a framework checkpoint (DCP) with the "
        "checkpoint that it was trained on, or a bundle that was exported from one. A DCP folder's index is a pickle, "
        "which can run code: give only what you trust. The bundle itself as NEW gives "
        "engines that were built with --strip-weights their own weights.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="the bundle with the engines")
    parser.add_argument("--weights", required=True, metavar="NEW", help="a checkpoint, adapter, DCP folder or bundle")
    parser.add_argument("--base", metavar="CHECKPOINT", help="what an adapter or a DCP folder was trained on")
    parser.add_argument("--out", metavar="BUNDLE2", help="where the bundle of new weights is written")
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
    from motedge.cli.new_weights import bundle_of_weights
    from motedge.errors import EXIT_OK
    from motedge.targets.catalog import load_target
    from motedge.targets.refit.checks import require_refittable, wanted_engines
    from motedge.targets.refit.job import plan_refit, refit_engines

    target = load_target(args.target)
    old = Bundle.open(args.bundle)
    graphs = None if args.graphs is None else [name for name in args.graphs.split(",") if name]
    # Before an export, which takes minutes
    files = require_refittable(old, target, graphs)
    new = bundle_of_weights(old, wanted_engines(files, graphs), args)
    refits = plan_refit(old, new, target, graphs=graphs, trust_host_code=args.trust_host_code)
    if args.dry_run:
        _print_plan(refits, args.json)
        return EXIT_OK
    report = refit_engines(refits, new, target, trust_host_code=args.trust_host_code)
    _deliver(report, args.json)
    return EXIT_OK


def _print_plan(refits: list[Refit], as_json: bool) -> None:
    rows = [
        {
            "graph": r.engine.graph,
            "variant": r.engine.variant,
            "file": r.planned.file,
            "up_to_date": r.up_to_date,
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
