"""`motedge quantize BUNDLE --recipe NAME --out BUNDLE2`: FP8, INT8, INT4 and NVFP4 graphs, with evidence."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from motedge.units import format_bytes

if TYPE_CHECKING:
    from motedge.quant.job import QuantizeReport
    from motedge.quant.plan import QuantizePlan


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "quantize",
        help="quantize a bundle's towers, and measure what it costs",
        description="Calibrate with NVIDIA ModelOpt on real observations, write quantized graphs into a new bundle, "
        "and measure how far they are from the original. Exit code 1 when the result misses the gate.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="an unquantized bundle, as motedge export writes it")
    parser.add_argument(
        "--recipe",
        required=True,
        metavar="NAME",
        help="fp8, int8-sq, int4-awq, nvfp4, w8a16, fp8-w8a16, nvfp4-w4a16, mixed, or a .toml file",
    )
    parser.add_argument("--out", required=True, metavar="BUNDLE2", help="the bundle folder to write, or to add to")
    data = parser.add_argument_group("observations")
    data.add_argument(
        "--calibration",
        metavar="DATA",
        help="a LeRobot data set, a folder of images with states.csv, requests recorded by motedge run --record, or "
        "the ring of a recorder (run or serve --recorder)",
    )
    data.add_argument("--instruction", metavar="TEXT", help="the task, where the data set does not say it")
    data.add_argument("--observations", type=int, default=8, metavar="N", help="to calibrate on (default %(default)s)")
    data.add_argument("--held-out", type=int, default=2, metavar="N", help="to measure on (default %(default)s)")
    data.add_argument("--seed", type=int, default=0, help="of their choice, and of the noise (default %(default)s)")
    data.add_argument("--reuse", metavar="FOLDER", help="calibration/NAME of an earlier run: what it has is not redone")
    how = parser.add_argument_group("how")
    how.add_argument("--variants", metavar="LIST", help="unquantized variants to start from (default: all there are)")
    how.add_argument("--target", metavar="ID", help="refuse a recipe that this device can't run")
    how.add_argument("--compute", default="auto", choices=("auto", "fp32", "bf16"), help="type that towers compute in")
    how.add_argument("--device", default="cpu", metavar="NAME", help="torch device to calibrate on (default cpu)")
    how.add_argument("--awq-forwards", type=int, default=8, metavar="N", help="forwards for AWQ's search (default 8)")
    how.add_argument(
        "--report",
        default="full",
        choices=("full", "weights"),
        help="all, or weights alone and unjudged",
    )
    how.add_argument("--engine", default="auto", choices=("auto", "onnxruntime", "torch"), help="what is measured")
    how.add_argument("--min-cosine", type=float, default=0.999, metavar="X", help="gate (default %(default)s)")
    how.add_argument("--max-relative-l2", type=float, default=0.03, metavar="X", help="gate (default %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be quantized, and write nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Quantizes, or plans with --dry-run."""
    from motedge.errors import EXIT_GATE_FAILED, EXIT_OK, MissingPackageError

    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(error.name or "torch", extra="export,quant", purpose="to quantize") from error
    from pathlib import Path

    from motedge.bundle import Bundle
    from motedge.cli.predicted_latency import predicted_latency
    from motedge.quant.calibration.job import CalibrationOptions, compute_type
    from motedge.quant.fidelity.measure import FidelityOptions
    from motedge.quant.job import quantize_bundle
    from motedge.quant.plan import make_plan
    from motedge.quant.recipe import load_recipe
    from motedge.quant.statistics import StatisticsSource, find_statistics
    from motedge.runtime.comparison import Gate
    from motedge.targets.catalog import load_target

    recipe = load_recipe(args.recipe)
    target = load_target(args.target) if args.target else None
    variants = None if args.variants is None else [name for name in args.variants.split(",") if name]
    plan = make_plan(Bundle.open(args.bundle), recipe, variants=variants, target=target)
    if args.dry_run:
        _print_plan(plan, args.json)
        return EXIT_OK
    options = CalibrationOptions(
        observations=args.observations,
        held_out=args.held_out,
        seed=args.seed,
        compute=args.compute,
        device=args.device,
        awq_forwards=args.awq_forwards,
    )
    gate = Gate(args.min_cosine, args.max_relative_l2)
    fidelity = FidelityOptions(
        engine=args.engine,
        compute=compute_type(plan.bundle, options),
        gate=gate,
        device=args.device,
        seed=args.seed + 1,
        latency=predicted_latency(plan.bundle, args.recipe, target) if target else None,
    )
    source = StatisticsSource(args.calibration, args.instruction, args.reuse, options)
    statistics = find_statistics(plan, source, Path(args.out) / "calibration" / recipe.id)
    if args.report == "weights":
        statistics = dataclasses.replace(statistics, dataset=None, held_out=())
    report = quantize_bundle(plan, statistics, args.out, fidelity)
    _deliver(report, args.json)
    return EXIT_GATE_FAILED if report.fidelity.verdict.status == "failed" else EXIT_OK


def _print_plan(plan: QuantizePlan, as_json: bool) -> None:
    rows: list[dict[str, Any]] = []
    for graph in plan.bundle.manifest.graphs:
        schemes: dict[str, int] = {}
        for scheme in plan.schemes.get(graph, {}).values():
            schemes[scheme.id] = schemes.get(scheme.id, 0) + 1
        for base in plan.bases(graph):
            before, after = plan.weight_bytes(graph, base)
            rows.append({"graph": graph, "variant": base, "sites": schemes, "bytes": before, "quantized_bytes": after})
    if as_json:
        print(json.dumps({"recipe": plan.recipe.id, "graphs": rows}, indent=2))
        return
    for row in rows:
        sites = ", ".join(f"{count} {name}" for name, count in row["sites"].items()) or "stays as it is"
        size = f"{format_bytes(row['bytes'])} -> {format_bytes(row['quantized_bytes'])}"
        print(f"{row['graph']:<14}{row['variant']:<16}{size:<24}{sites}")


def _deliver(report: QuantizeReport, as_json: bool) -> None:
    verdict = report.fidelity.verdict
    page = report.root / "fidelity" / report.fidelity.recipe / "report.html"
    if as_json:
        document = {
            "bundle": str(report.root),
            "written": report.written,
            "verdict": verdict.to_dict(),
            "report": str(page),
        }
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    written = f"{len(report.written)} files written" if report.written else "up to date"
    print(f"{report.root}: {written}")
    print("\n".join(verdict.lines()))
    print(f"report: {page}")
