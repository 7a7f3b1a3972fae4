"""`motedge build BUNDLE --target T`: engines for one device, and build.json that says what is in them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from motedge.units import format_bytes

if TYPE_CHECKING:
    from motedge.runtime.engine_files import EngineFile
    from motedge.targets.builders.job import BuildReport, PlannedEngine

_SHOWN = 5


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "build",
        help="build a bundle's graphs into engines for a device",
        description="Build engines with TensorRT (on the device itself), TensorRT-RTX (for a GPU that need not be "
        "here) or onnxruntime (for a CPU), whichever the target takes. What is up to date is left alone.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle, as motedge export or quantize writes it")
    parser.add_argument("--target", required=True, metavar="ID", help="the device: motedge targets list")
    what = parser.add_argument_group("what")
    what.add_argument("--graphs", metavar="LIST", help="comma-separated (default: all)")
    what.add_argument("--variant", metavar="ID", help="such as fused-bf16 (default: the best that the device takes)")
    what.add_argument("--recipe", metavar="NAME", help="quantized graphs of this recipe, where the bundle has several")
    how = parser.add_argument_group("how")
    how.add_argument("--builder", metavar="NAME", help="tensorrt, tensorrt-rtx or onnxruntime (default: the target's)")
    how.add_argument("--optimization-level", type=int, metavar="N", help="0 (fast to build) to 5 (default: library's)")
    how.add_argument("--workspace-gb", type=float, metavar="GB", help="scratch memory for tactics, at most")
    how.add_argument("--weight-streaming", action="store_true", help="keep weights out of GPU memory until needed")
    how.add_argument("--refittable", action="store_true", help="let motedge refit exchange the weights")
    how.add_argument("--strip-weights", action="store_true", help="leave weights out that a refit can bring back")
    how.add_argument(
        "--version-compatible",
        action="store_true",
        help="let later versions load it; it then holds host code, and must be trusted where it is loaded",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, say what would be built, build nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Builds, or plans with --dry-run."""
    from motedge.bundle import Bundle
    from motedge.errors import EXIT_OK
    from motedge.targets.builders.job import BuildOptions, build_engines, plan_engines
    from motedge.targets.builders.settings import BuildSettings
    from motedge.targets.catalog import load_target

    target = load_target(args.target)
    settings = BuildSettings(
        optimization_level=args.optimization_level,
        workspace_gb=args.workspace_gb,
        weight_streaming=args.weight_streaming,
        refittable=args.refittable,
        strip_weights=args.strip_weights,
        version_compatible=args.version_compatible,
    )
    graphs = None if args.graphs is None else [name for name in args.graphs.split(",") if name]
    options = BuildOptions(graphs, args.variant, args.recipe, args.builder, settings)
    bundle = Bundle.open(args.bundle)
    if args.dry_run:
        _, planned = plan_engines(bundle, target, options)
        _print_plan(planned, args.json)
        return EXIT_OK
    progress = _Progress()
    try:
        report = build_engines(bundle, target, options, progress)
    finally:
        progress.close()
    _deliver(report, args.json)
    return EXIT_OK


class _Progress:
    """One line on a terminal that changes; elsewhere nothing."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._width = 0

    def __call__(self, graph: str, phase: str, share: float) -> None:
        if self._terminal:
            line = f"{graph}: {100 * share:3.0f} % {phase}"
            print(f"\r{line:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(line)

    def close(self) -> None:
        """Clears the line."""
        if self._terminal and self._width:
            print(f"\r{'':<{self._width}}\r", end="", file=sys.stderr, flush=True)


def _print_plan(planned: list[PlannedEngine], as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "graph": engine.choice.graph,
                "variant": engine.choice.variant,
                "file": engine.file,
                "up_to_date": engine.up_to_date,
            }
            for engine in planned
        ]
        print(json.dumps({"engines": rows}, indent=2))
        return
    for engine in planned:
        print(f"{'up to date' if engine.up_to_date else 'to build':<12}{engine.file}")


def _deliver(report: BuildReport, as_json: bool) -> None:
    if as_json:
        document = {
            "folder": str(report.files.folder),
            "built": [engine.file for engine in report.built],
            "skipped": [engine.file for engine in report.skipped],
            **report.files.to_dict(),
        }
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    for engine in report.built:
        print(
            f"{engine.file}: {format_bytes(engine.total_bytes)}, {engine.seconds:.1f} s, "
            f"peak memory {format_bytes(engine.peak_memory_bytes)}"
        )
        _print_raised(engine)
    if not report.built:
        print(f"{report.files.folder}: up to date")


def _print_raised(engine: EngineFile) -> None:
    for layer in engine.raised_precision[:_SHOWN]:
        print(f"  {layer['layer']}: {layer['got']}, asked {layer['asked']} ({layer['where']})")
    rest = len(engine.raised_precision) - _SHOWN
    if rest > 0:
        print(f"  and {rest} more layers in a higher precision than asked: build.json names them")
    for note in engine.notes:
        print(f"  {note}")
