"""`motedge sensitivity BUNDLE --recipes LIST`: what quantizing each projection costs, and a mixed recipe."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, Optional

from motedge.units import format_bytes

if TYPE_CHECKING:
    from motedge.quant.sensitivity.job import SearchPlan


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "sensitivity",
        help="measure what quantizing each projection costs, and mix schemes by it",
        description="Quantize each projection alone, measure the generator's error, and choose a scheme for each one. "
        "Writes sensitivity.json, sensitivity.html and mixed.toml, which motedge quantize --recipe takes. What was "
        "measured is kept: an interrupted search goes on. Exit code 1 when no mixture keeps the bound.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="an unquantized bundle, as motedge export writes it")
    parser.add_argument(
        "--recipes", required=True, metavar="LIST", help="comma-separated recipes whose schemes to choose from"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of the results, made or completed")
    _add_data(parser.add_argument_group("observations"))
    _add_target(parser.add_argument_group("target of the mixture, one of (default --max-error 0.03)"))
    _add_how(parser.add_argument_group("how"))
    parser.add_argument("--dry-run", action="store_true", help="say what would be measured, and write nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def _add_data(data: Any) -> None:
    data.add_argument(
        "--calibration",
        required=True,
        metavar="DATA",
        help="a LeRobot data set, a folder of images with states.csv, requests recorded by motedge run --record, or "
        "the ring of a recorder (run or serve --recorder)",
    )
    data.add_argument("--instruction", metavar="TEXT", help="the task, where the data set does not say it")
    data.add_argument("--observations", type=int, default=8, metavar="N", help="to learn from (default %(default)s)")
    data.add_argument("--held-out", type=int, default=4, metavar="N", help="to compare on (default %(default)s)")
    data.add_argument("--seed", type=int, default=0, help="of their choice, and of the noise (default %(default)s)")


def _add_target(target: Any) -> None:
    target.add_argument("--max-error", type=float, metavar="X", help="relative L2 of the metric; least bytes")
    target.add_argument("--max-bytes", type=int, metavar="B", help="bytes of the projections; least error")
    target.add_argument("--max-bits", type=float, metavar="B", help="the same as bits a weight")


def _add_how(how: Any) -> None:
    how.add_argument(
        "--metric", default="action", choices=("action", "velocity"), help="error to keep small (default %(default)s)"
    )
    how.add_argument("--forwards", type=int, metavar="N", help="to measure each cost on (default 8 or more)")
    how.add_argument(
        "--front", type=int, default=6, metavar="N", help="mixtures between the ends (default %(default)s)"
    )
    how.add_argument("--jobs", type=int, metavar="N", help="workers, one thread each (default: one a core)")
    how.add_argument("--ray", action="store_true", help="workers on the machines of a Ray cluster")
    how.add_argument("--compute", default="fp32", choices=("fp32", "bf16"), help="type that towers compute in")
    how.add_argument("--device", default="cpu", metavar="NAME", help="torch device (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Searches, or plans with --dry-run."""
    from motedge.errors import EXIT_GATE_FAILED, EXIT_OK, MissingPackageError

    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(error.name or "torch", extra="export,quant", purpose="to search") from error
    from pathlib import Path

    from motedge.bundle import Bundle
    from motedge.quant.recipe import load_recipe
    from motedge.quant.sensitivity.job import plan_search, run_search
    from motedge.quant.sensitivity.observations import ObservationSource
    from motedge.quant.sensitivity.options import SearchOptions, Target

    recipes = [load_recipe(name) for name in args.recipes.split(",") if name]
    options = SearchOptions(
        metric=args.metric,
        target=Target(args.max_error, args.max_bytes, args.max_bits),
        forwards=args.forwards,
        front=args.front,
        seed=args.seed,
        compute=args.compute,
        device=args.device,
    )
    jobs = _jobs(args.jobs, args.ray, args.device)
    bundle = Bundle.open(args.bundle)
    source = ObservationSource.open(args.calibration, args.instruction, args.observations, args.held_out)
    plan = plan_search(bundle, recipes, source.identity(), Path(args.out), options)
    if args.dry_run:
        _print_plan(plan, jobs, args.json)
        return EXIT_OK
    report, worked = run_search(plan, lambda: source.evidence(plan), jobs=jobs, ray=args.ray)
    _deliver(report, Path(args.out), worked, args.json)
    return EXIT_OK if report["chosen"]["met"] and report["recipe"] else EXIT_GATE_FAILED


def _jobs(asked: Optional[int], ray: bool, device: str) -> int:
    """Workers; 0 leaves it to the Ray cluster."""
    from pathlib import Path

    from motedge.doctor.host import examine_host
    from motedge.errors import UsageError

    if asked is not None and asked < 1:
        raise UsageError("the number of jobs is wrong", expected="at least 1", got=asked)
    if asked is not None:
        return asked
    if ray:
        return 0
    # Workers on an accelerator would each hold the towers in its memory
    return examine_host(Path()).usable_cores if device == "cpu" else 1


def _print_plan(plan: SearchPlan, jobs: int, as_json: bool) -> None:
    space = plan.space
    rows = []
    for graph, sites in space.schemes().items():
        costs = sum(len(schemes) for schemes in sites.values())
        rows.append({"graph": graph, "projections": len(sites), "costs": costs})
    sizes = {"least_bytes": int(space.least_bytes), "unquantized_bytes": int(space.bytes_of({}))}
    if as_json:
        print(json.dumps({"graphs": rows, **sizes, "target": plan.options.target.in_words(), "jobs": jobs}, indent=2))
        return
    for row in rows:
        print(f"{row['graph']:<14}{row['projections']:>5} projections {row['costs']:>6} costs to measure")
    print(f"mixtures from {format_bytes(sizes['least_bytes'])} to {format_bytes(sizes['unquantized_bytes'])}")
    print(f"target: {plan.options.target.in_words()}")
    print("\n".join(f"note: {note}" for note in space.notes) or "every scheme fits every projection")


def _deliver(report: dict[str, Any], out: Any, worked: bool, as_json: bool) -> None:
    chosen = report["chosen"]
    if as_json:
        keys = ("recipe", "metric", "target", "points", "steps", "chosen", "predicted_time", "notes")
        document = {"folder": str(out), "up_to_date": not worked, **{key: report[key] for key in keys}}
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    if not worked:
        print(f"{out} is up to date")
    print(f"{'':<55}predicted  measured  held-out chunk")
    for point in sorted(report["points"], key=lambda point: point["bytes"]):
        numbers = f"{_percent(point['predicted'])} {_percent(point['error'])} {_percent(point['held_out_chunk'])}"
        print(f"{point['name']:<32}{point['bits']:7.3f} bits {format_bytes(point['bytes']):>10} {numbers}")
    words = "keeps" if chosen["met"] else "does not keep"
    print(f"chosen: {chosen['name']}, {chosen['bits']:.3f} bits a weight; it {words} the bound as measured")
    if report["recipe"] is None:
        print("no projection can be quantized within the bound: there is no mixed.toml")
    else:
        print(f"recipe: {out / report['recipe']['file']}")
    print(f"report: {out / 'sensitivity.html'}")


def _percent(value: Optional[float]) -> str:
    return f"{'-':>9}" if value is None else f"{100 * value:8.3g}%"
