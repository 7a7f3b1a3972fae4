"""Whether a bundle stays on the road and does as it is told: per recipe, operating point and conditions of the drive.

With the committed small checkpoint (examples/small_road) on roads that it has not seen, by examples/train_small.

    python benchmarks/closed_loop.py --work out/closed_loop
    python benchmarks/closed_loop.py --work out/closed_loop --bundle fp8=out/small-fp8@fp8 --page out/closed_loop.html
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Optional

# gymnasium draws on a screen unless told otherwise; one thread, so that a plan's time is a core's
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from conditions import SCHEMA, collect_conditions, load_average  # noqa: E402

from examples.train_small.closed_loop.bundles import export_small, gate_verdict, make_untrained, towers_mb  # noqa: E402
from examples.train_small.closed_loop.drivers import BundleSpec, Drivers  # noqa: E402
from examples.train_small.closed_loop.figures import collect  # noqa: E402
from examples.train_small.closed_loop.journal import Journal, program_hash  # noqa: E402
from examples.train_small.closed_loop.rows import (  # noqa: E402
    FIRST_SEED,
    REFERENCE,
    SEEDS,
    UNTRAINED,
    Row,
    plan_rows,
)
from examples.train_small.closed_loop.run import measure  # noqa: E402
from examples.train_small.road.versions import check_behaviour, check_versions, installed  # noqa: E402
from motedge.errors import MotedgeError, UsageError  # noqa: E402
from motedge.files import require_writable, write_json  # noqa: E402

FP16 = "fp16"
FILM_SEED = FIRST_SEED + 4
_JSON_BYTES_MAX = 200_000
# What is told of each session that drove; `conditions` are the last one's
_SESSION = ("date", "commit", "uncommitted_changes", "cpu", "workers", "load_average")


def main(arguments: Optional[list[str]] = None) -> int:
    """Drives, writes JSON and page; 1 where a budget ended it before all was driven."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="journal and bundles; another run goes on from there")
    parser.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="NAME=PATH[@RECIPE]",
        help="another bundle to drive, beside fp32, fp16 and an untrained one, which are made",
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"roads a row, from seed {FIRST_SEED} on")
    parser.add_argument(
        "--only",
        action="append",
        metavar="TEXT",
        help="only rows whose name holds this; may be repeated for rows that hold another one",
    )
    parser.add_argument("--budget-s", type=float, metavar="S", help="end after this long, with what there is")
    parser.add_argument("--workers", type=int, default=1, help="drives at a time, each on a core (default: 1)")
    parser.add_argument("--out", type=Path, help="JSON (default: closed_loop.json in --work)")
    parser.add_argument("--page", type=Path, help="report, HTML")
    args = parser.parse_args(arguments)
    try:
        return _measure(args)
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _measure(args: argparse.Namespace) -> int:
    out = args.out or args.work / "closed_loop.json"
    for path in filter(None, (out, args.page)):
        require_writable(path)
    if not 1 <= args.workers <= 256:
        raise UsageError("--workers is wrong", expected="1 to 256", got=args.workers)
    asked = [_parse(text) for text in args.bundle]
    check_versions()
    check_behaviour()
    conditions = collect_conditions(threads=1)
    bundles = _bundles(args.work, asked)
    weights_mb = {name: towers_mb(spec.path, spec.recipe, spec.variant) for name, spec in bundles.items()}
    rows = plan_rows(tuple(bundles), args.seeds, args.only)
    journal = Journal(args.work / "journal.jsonl", bundles)
    journal.begin({**conditions, "simulator": installed(), "workers": args.workers})
    drivers = Drivers(bundles)
    try:
        complete = measure(
            rows, drivers, journal, args.budget_s, lambda text: print(text, file=sys.stderr), args.workers
        )
    except KeyboardInterrupt:
        complete = False
        print("interrupted: what was driven is kept", file=sys.stderr)
    film = _film(args.work, drivers) if args.page is not None else None
    drivers.close()
    document = {
        "schema": SCHEMA,
        "benchmark": "closed_loop",
        "conditions": {**conditions, "load_average_after": load_average(), "simulator": installed()},
        "program": program_hash(),
        "complete": complete,
        "only": args.only,
        "workers": args.workers,
        "sessions": [{name: session[name] for name in _SESSION} for session in journal.sessions],
        "roads": {"first_seed": FIRST_SEED, "count": args.seeds},
        "bundles": {
            name: {
                "recipe": spec.recipe,
                "variant": spec.variant,
                "towers_mb": weights_mb[name],
                "gate": gate_verdict(spec.path, spec.recipe),
                "manifest_sha256": journal.bundles[name],
            }
            for name, spec in bundles.items()
        },
        **collect(rows, journal),
    }
    write_result(out, document)
    if args.page is not None:
        from examples.train_small.closed_loop.page import write_page

        write_page(args.page, document, film)
    _print_table(document)
    return 0 if complete else 1


def _film(work: Path, drivers: Drivers) -> Path:
    """One drive of the reference, kept in the work folder."""
    from examples.train_small.closed_loop.film import film_drive

    film, row = work / "film.webp", Row(REFERENCE)
    if not film.is_file():
        film_drive(drivers.of(row), FILM_SEED, row.instruction("right"), film)
    return film


def write_result(out: Path, document: dict[str, Any]) -> None:
    """Writes the JSON, with a line a row.

    Raises:
        UsageError: it is larger than what is kept in the repository.
    """
    write_json(out, document)
    if out.stat().st_size > _JSON_BYTES_MAX:
        raise UsageError(
            f"{out} is larger than {_JSON_BYTES_MAX} bytes", got=out.stat().st_size, fix="drive fewer rows"
        )


def _bundles(work: Path, asked: list[tuple[str, BundleSpec]]) -> dict[str, BundleSpec]:
    exported = export_small(work / "bundle", variants="primitive-fp32,primitive-fp16")
    untrained = export_small(work / "untrained", make_untrained(work / "untrained_checkpoint"))
    bundles = {
        REFERENCE: BundleSpec(exported, variant="primitive-fp32"),
        FP16: BundleSpec(exported, variant="primitive-fp16"),
        UNTRAINED: BundleSpec(untrained),
    }
    for name, spec in asked:
        if name in bundles:
            raise UsageError(f"two bundles are named {name!r}", fix="give each --bundle another name")
        bundles[name] = spec
    return bundles


def _parse(text: str) -> tuple[str, BundleSpec]:
    name, equals, rest = text.partition("=")
    path, _, recipe = rest.partition("@")
    if not (name and equals and path):
        raise UsageError("a bundle is given wrongly", expected="NAME=PATH or NAME=PATH@RECIPE", got=text)
    return name, BundleSpec(Path(path), recipe or None)


def _print_table(document: dict[str, Any]) -> None:
    print(f"{'row':<52}{'success':>12}{'interval':>16}{'open loop m':>13}{'plan ms':>9}")
    for row in document["rows"]:
        low, high = row["interval"]
        open_loop = "" if row["open_loop_m"] is None else f"{row['open_loop_m']['mean']:.3f}"
        times = "" if row["plan_ms"] is None else f"{row['plan_ms']['p50']:.1f}"
        share = f"{row['successes']} of {row['drives']}"
        print(f"{row['row']:<52}{share:>12}{f'{low:.1%} to {high:.1%}':>16}{open_loop:>13}{times:>9}")


if __name__ == "__main__":
    sys.exit(main())
