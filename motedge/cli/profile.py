"""`motedge profile BUNDLE`: where a tick's time and energy go on this machine; `--compare` tells change from noise."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from motedge.cli.gpu_arguments import add_gpu_arguments
from motedge.cli.profile_subject import add_engine, other_subject, subject
from motedge.cli.watched_work import watched_work
from motedge.errors import UsageError

if TYPE_CHECKING:
    from motedge.profile.job import ProfileRun
    from motedge.profile.options import ProfileOptions

# Folders of the two profiles that are taken in turn
_SIDES = ("a", "b")
_COMPARISON, _PAGE = "comparison.json", "comparison.html"
_OTHERS = ("other_engine", "other_variant", "other_recipe")


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "profile",
        help="measure where a policy's time and energy go on this machine",
        description="Runs a bundle's policy on one observation, cold and warm, and tells the time of each stage, "
        "graph and denoising step, how steady it is, how near to what the device could do, and the energy of a chunk "
        "as far as sensors tell. With --compare it runs nothing and says what changed between two profiles, and "
        "whether that is noise.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="folder made by motedge export")
    parser.add_argument("--observation", metavar="DIR", help="folder with observation.json")
    ticks = parser.add_argument_group("ticks")
    ticks.add_argument("--ticks", type=int, default=100, metavar="N", help="measured warm (default: %(default)s)")
    ticks.add_argument("--warmup", type=int, default=5, metavar="N", help="before them (default: %(default)s)")
    ticks.add_argument("--new-prompts", type=int, default=5, metavar="N", help="each with other words (%(default)s)")
    ticks.add_argument("--max-s", type=float, default=60.0, metavar="S", help="end of the warm ticks (%(default)g)")
    ticks.add_argument("--rate-hz", type=float, metavar="R", help="pace of the warm ticks; default: without a pause")
    ticks.add_argument("--deadline-ms", type=float, metavar="N", help="count the ticks that take longer")
    sensors = parser.add_argument_group("sensors")
    sensors.add_argument("--interval-ms", type=float, default=100.0, metavar="N", help="between readings (%(default)g)")
    sensors.add_argument("--energy-s", type=float, default=5.0, metavar="S", help="ticks for energy (%(default)g)")
    sensors.add_argument("--idle-s", type=float, default=3.0, metavar="S", help="rest before them (%(default)g)")
    sensors.add_argument("--no-sensors", action="store_true", help="read none")
    add_engine(parser)
    add_gpu_arguments(parser)
    _add_comparing(parser)
    out = parser.add_argument_group("result")
    out.add_argument(
        "--out", metavar="DIR", help="write profile.json, profile.html, trace.json, times.json; of two, a comparison"
    )
    out.add_argument("--overwrite", action="store_true", help="in place of an earlier profile")
    out.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.set_defaults(run=run)


def _add_comparing(parser: argparse.ArgumentParser) -> None:
    two = parser.add_argument_group("two profiles")
    two.add_argument("--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="profile.json, or their folders")
    two.add_argument("--interleave", metavar="BUNDLE", help="profile this one too, tick by tick in turn; then compare")
    two.add_argument("--other-engine", metavar="NAME", help="engine of the second one")
    two.add_argument("--other-variant", metavar="ID", help="its variant")
    two.add_argument("--other-recipe", metavar="ID", help="its recipe")
    two.add_argument("--least-change", type=float, metavar="PERCENT", help="below, a change is not called one")
    two.add_argument("--other-device", action="store_true", help="compare although the devices differ")
    two.add_argument("--fail-if-slower", action="store_true", help="exit code 1 where the tick is slower")


def run(args: argparse.Namespace) -> int:
    """Measures, prints, writes; what was measured is written even if the run is cut short."""
    from motedge.profile.report import load_profile

    if args.compare:
        if args.bundle or args.observation or args.interleave:
            raise UsageError("--compare runs nothing", expected="two profiles alone", fix="leave BUNDLE away")
        if args.out:
            _check_comparison(args)
        return _compare(args, *(load_profile(path) for path in args.compare))
    for name in ("bundle", "observation"):
        if getattr(args, name) is None:
            raise UsageError(f"a profile needs {name}", fix="motedge profile BUNDLE --observation DIR")
    if args.interleave:
        return _interleave(args)
    given = [name for name in (*_OTHERS, "least_change") if getattr(args, name) is not None]
    if given:
        raise UsageError(f"--{given[0].replace('_', '-')} is for two profiles", expected="--interleave or --compare")
    return _one(args)


def _one(args: argparse.Namespace) -> int:
    from motedge.errors import EXIT_OK
    from motedge.profile.job import ProfileRun, check_out
    from motedge.profile.sensors.find import all_sensors
    from motedge.profile.text import profile_lines
    from motedge.runtime.policy.observation_folder import read_observation

    options = _options(args)
    if args.out:
        check_out(args.out, overwrite=args.overwrite)
    observation = read_observation(args.observation)
    with contextlib.ExitStack() as opened:
        job = ProfileRun(subject(args, opened), observation, options)
        sensors = [] if args.no_sensors else all_sensors(args.gpu, args.interval_ms)
        try:
            with watched_work() as show:
                job.run(sensors, _progress(show))
        finally:
            document = _written(job, args.out)
            if document is not None:
                lines = profile_lines(document) + ([f"written      {args.out}"] if args.out else [])
                print(_json(document) if args.json else "\n".join(lines))
    return EXIT_OK


def _interleave(args: argparse.Namespace) -> int:
    from motedge.profile.interleave import run_interleaved
    from motedge.profile.job import ProfileRun, check_out
    from motedge.profile.sensors.find import all_sensors
    from motedge.runtime.policy.observation_folder import read_observation

    options = _options(args)
    if args.rate_hz is not None:
        raise UsageError("--rate-hz and --interleave contradict each other", expected="one of them")
    folders = [str(Path(args.out) / side) for side in _SIDES] if args.out else [None, None]
    for folder in filter(None, folders):
        check_out(folder, overwrite=args.overwrite)
    if args.out:
        _check_comparison(args)
    observation = read_observation(args.observation)
    documents: list[Any] = []
    with contextlib.ExitStack() as opened:
        subjects = subject(args, opened), other_subject(args, opened)
        first, second = (ProfileRun(chosen, observation, options) for chosen in subjects)
        sensors = [] if args.no_sensors else all_sensors(args.gpu, args.interval_ms)
        try:
            with watched_work() as show:
                run_interleaved((first, second), options, sensors, _progress(show))
        finally:
            documents = [_written(job, folder) for job, folder in zip((first, second), folders)]
            if args.out and any(documents):
                print(f"written      {args.out}", file=sys.stderr)
    return _compare(args, *documents)


def _check_comparison(args: argparse.Namespace) -> None:
    from motedge.files import require_writable

    target = Path(args.out) / _COMPARISON
    require_writable(target)
    if target.exists() and not args.overwrite:
        raise UsageError(f"{target} exists", fix="give another folder, or --overwrite")


def _compare(args: argparse.Namespace, before: Any, after: Any) -> int:
    from motedge.errors import EXIT_GATE_FAILED, EXIT_OK
    from motedge.files import atomic_open, write_json
    from motedge.profile.compare import SLOWER, compare_profiles
    from motedge.profile.compare_text import comparison_lines

    least = None if args.least_change is None else args.least_change / 100
    if least is not None and not 0 <= least < 1:
        raise UsageError("--least-change is wrong", expected="0 to below 100 %", got=args.least_change)
    comparison = compare_profiles(before, after, other_device=args.other_device, least_change=least)
    if args.out:
        from motedge.profile.page.comparison import render_comparison

        write_json(Path(args.out) / _COMPARISON, comparison.to_dict())
        with atomic_open(Path(args.out) / _PAGE, "wb") as stream:
            stream.write(render_comparison(comparison, before, after).encode("utf-8"))
    print(_json(comparison.to_dict()) if args.json else "\n".join(comparison_lines(comparison)))
    slower = comparison.tick is not None and comparison.tick.verdict == SLOWER
    return EXIT_GATE_FAILED if slower and args.fail_if_slower else EXIT_OK


def _written(job: ProfileRun, folder: Optional[str]) -> Any:
    """The document, written if there is a folder; None before the first tick: the error then says it all."""
    if not job.measured.ticks:
        return None
    document = job.document()
    if folder is not None:
        job.write(folder, document)
    return document


def _options(args: argparse.Namespace) -> ProfileOptions:
    from motedge.profile.options import ProfileOptions

    return ProfileOptions(
        ticks=args.ticks,
        warmup=args.warmup,
        new_prompts=args.new_prompts,
        max_s=args.max_s,
        rate_hz=args.rate_hz,
        deadline_ms=args.deadline_ms,
        interval_ms=args.interval_ms,
        idle_s=args.idle_s,
        energy_s=args.energy_s,
    )


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def _progress(show: Optional[Callable[[str], None]]) -> Any:
    """Tells a profile's progress in words; None where nobody watches."""
    if show is None:
        return None
    return lambda phase, number, count: show(f"{phase} {number + 1} of {count}")
