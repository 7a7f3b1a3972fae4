"""`motedge bench BUNDLE ...`: accuracy against latency of each recipe at each operating point; resumable."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from motedge.cli.gpu_arguments import add_gpu_arguments, gpu_options
from motedge.cli.watched_work import watched_work
from motedge.errors import UsageError, closest
from motedge.units import count_of

if TYPE_CHECKING:
    from motedge.bench.job import BenchSubject
    from motedge.bench.options import BenchOptions


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "bench",
        help="accuracy against latency of every recipe and operating point on this machine",
        description="Runs each recipe of the bundles at each operating point, in turn, on the same observations and "
        "noise: time, energy, memory, and how far the actions are from those of the unquantized bundle; and which "
        "cells no other beats. What was measured is kept in --out: the same command goes on where it was interrupted.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", nargs="+", help="the unquantized one, and those made from it")
    parser.add_argument("--out", required=True, metavar="DIR", help="journal, bench.json and bench.html")
    what = parser.add_argument_group("recipes (default: all that the bundles have)")
    what.add_argument("--recipes", metavar="LIST", help="only these, for example fp8,int4-awq,unquantized")
    what.add_argument("--variants", metavar="LIST", help="each in each of these, the reference in the first")
    what.add_argument("--reference", metavar="BUNDLE", help="the one that is judged by; default: the first unquantized")
    how = parser.add_argument_group("operating points (default: the ladder of motedge run --deadline-ms)")
    how.add_argument("--steps", metavar="LIST", help="denoising steps, for example 1,2,4")
    how.add_argument("--guidance", metavar="LIST", help="guidance scales; 1 switches it off")
    how.add_argument(
        "--guidance-interval", action="append", metavar="LO:HI", help="guidance only there, or always; may be repeated"
    )
    how.add_argument("--step-cache", action="append", metavar="RULE", help="as motedge run, or none; may be repeated")
    how.add_argument("--ladder", metavar="FILE", help="points of a ladder (TOML) instead")
    seen = parser.add_argument_group("observations (default: the sample that the bundle carries)")
    seen.add_argument(
        "--observations", nargs="+", metavar="DIR", help="observations, folders of motedge run --record or --recorder"
    )
    seen.add_argument("--most-observations", type=int, default=8, metavar="N", help="of them (default: %(default)s)")
    seen.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (default: %(default)s)")
    ticks = parser.add_argument_group("ticks")
    ticks.add_argument("--repeat", type=int, default=30, metavar="N", help="timed of each cell (default: %(default)s)")
    ticks.add_argument("--rounds", type=int, metavar="N", help="turns that they are spread over (default: 15)")
    ticks.add_argument("--warm-up", type=int, default=3, metavar="N", help="before the first (default: %(default)s)")
    ticks.add_argument(
        "--energy-s", type=float, default=3.0, metavar="S", help="ticks for energy (default: %(default)g)"
    )
    ticks.add_argument("--idle-s", type=float, default=3.0, metavar="S", help="rest before them (default: %(default)g)")
    ticks.add_argument("--no-sensors", action="store_true", help="read none: no energy")
    ticks.add_argument("--one-at-a-time", action="store_true", help="one recipe in memory; they take no turns then")
    engine = parser.add_argument_group("engine")
    engine.add_argument("--engine", default="onnxruntime", metavar="NAME", help="backend (default: %(default)s)")
    engine.add_argument("--threads", type=int, metavar="N", help="CPU threads of one operator")
    engine.add_argument("--check", choices=("full", "size"), default="full", help="how files are checked before use")
    add_gpu_arguments(parser)
    again = parser.add_argument_group("again")
    again.add_argument("--restart", action="store_true", help="forget what --out holds")
    again.add_argument("--retry", action="store_true", help="try cells that failed once more")
    parser.add_argument("--dry-run", action="store_true", help="check, list the cells, and run nothing")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures what is not there yet, prints, writes; exit code 1 where a cell failed."""
    from motedge.bench.job import Bench, written_at_last
    from motedge.bench.report import FAILED
    from motedge.bench.text import bench_lines
    from motedge.errors import EXIT_GATE_FAILED, EXIT_OK
    from motedge.profile.sensors.find import all_sensors

    options, subject = _options(args), _subject(args)
    if args.dry_run:
        return _list(args, subject, options)
    with Bench(subject, options, args.out, restart=args.restart) as bench:
        sensors = [] if args.no_sensors else all_sensors(args.gpu, options.interval_ms)
        try:
            with written_at_last(bench), watched_work() as show:
                bench.run(sensors, _progress(show), retry=args.retry)
        finally:
            if bench.begun:
                lines = [*bench_lines(bench.document()), f"written      {args.out}"]
                print(_json(bench.document()) if args.json else "\n".join(lines))
        failed = any(cell["status"] == FAILED for cell in bench.document()["cells"])
    return EXIT_GATE_FAILED if failed else EXIT_OK


def _list(args: argparse.Namespace, subject: BenchSubject, options: BenchOptions) -> int:
    """The cells; exit code 1 where some are sure to fail, as the run's would be."""
    from motedge.bench.job import check_bench
    from motedge.bench.state import cells_of
    from motedge.errors import EXIT_GATE_FAILED, EXIT_OK

    failing = {
        name: str(error) for name, error in check_bench(subject, options, args.out, restart=args.restart).items()
    }
    cells = cells_of(subject.candidates, subject.points)
    if args.json:
        rows = [
            {
                "candidate": cell.candidate.to_dict(),
                "point": cell.point.to_dict(),
                "error": failing.get(cell.candidate.name),
            }
            for cell in cells
        ]
        print(_json({"cells": rows, "notes": list(subject.notes)}))
    else:
        for cell in cells:
            print(f"{cell.point.forwards:>4} forwards  {cell.id}{', will fail' * (cell.candidate.name in failing)}")
        print("\n".join([count_of(len(cells), "cell"), *subject.notes]))
        for name, error in failing.items():
            print(f"will fail: {name}: {error}")
    return EXIT_GATE_FAILED if failing else EXIT_OK


def _subject(args: argparse.Namespace) -> BenchSubject:
    from motedge.bench.candidate import find_candidates
    from motedge.bench.job import BenchSubject
    from motedge.bench.observations import read_scenes
    from motedge.bench.points import Grid, bench_points
    from motedge.bundle import Bundle
    from motedge.runtime.backends import BACKENDS
    from motedge.runtime.policy.loader import sampler_settings
    from motedge.targets.catalog import load_target

    if args.target is not None:
        # Refused now, where it is not in the catalogue
        load_target(args.target)
    if args.engine not in BACKENDS:
        raise UsageError(f"unknown engine {args.engine!r}", fix=closest(args.engine, BACKENDS))
    candidates = find_candidates(
        args.bundle, recipes=_words(args.recipes), variants=_words(args.variants), reference=args.reference
    )
    policy = Bundle.open(candidates[0].bundle).manifest.policy
    grid = Grid(
        steps=_numbers(args.steps, int, "--steps"),
        guidance=_numbers(args.guidance, float, "--guidance"),
        intervals=args.guidance_interval or (),
        caches=args.step_cache or (),
    )
    points, left_out = bench_points(sampler_settings(policy, {}), grid, args.ladder)
    scenes = None
    if args.observations:
        scenes = tuple(read_scenes(args.observations, str(policy.get("embodiment")), args.most_observations))
    return BenchSubject(
        candidates=candidates,
        points=points,
        scenes=scenes,
        engine=args.engine,
        threads=args.threads,
        check=args.check,
        gpu=gpu_options(args),
        target=args.target,
        notes=[f"left out: {words}" for words in left_out],
    )


def _options(args: argparse.Namespace) -> BenchOptions:
    from motedge.bench.options import BenchOptions

    return BenchOptions(
        repeat=args.repeat,
        rounds=max(1, min(BenchOptions.rounds, args.repeat)) if args.rounds is None else args.rounds,
        warm_up=args.warm_up,
        seed=args.seed,
        energy_s=0.0 if args.no_sensors else args.energy_s,
        idle_s=args.idle_s,
        one_at_a_time=args.one_at_a_time,
    )


def _words(text: Optional[str]) -> Optional[list[str]]:
    return None if text is None else [word for word in text.split(",") if word]


def _numbers(text: Optional[str], kind: Any, option: str) -> list[Any]:
    try:
        return [kind(word) for word in text.split(",")] if text is not None else []
    except ValueError as error:
        raise UsageError(f"{option} is wrong", expected="numbers with commas between them", got=repr(text)) from error


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def _progress(show: Optional[Callable[[str], None]]) -> Any:
    """Tells a bench's progress in words; None where nobody watches."""
    if show is None:
        return None
    return lambda phase, number, count, name: show(f"{phase}: {number + 1} of {count}, {name}")
