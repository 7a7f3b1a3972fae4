"""`motedge verify`: rerun a bundle's samples on this machine; exit 1 when a result is too far from the recorded one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional

from motedge.errors import EXIT_GATE_FAILED, EXIT_OK
from motedge.units import format_ms

if TYPE_CHECKING:
    from motedge.runtime.verify import SampleReport

_COLUMNS = ("sample", "tensor", "variant", "cosine", "relative L2", "max error", "time", "result")


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "verify",
        help="check a bundle's graphs on this machine",
        description="Run the samples that travel with a bundle and compare with the recorded outputs: cosine, "
        "relative L2 and greatest error, for each graph and for a whole tick. NaN and infinity fail. Exit code 1 when "
        "a result misses its gate, 3 when the bundle has no sample.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--engine", default="onnxruntime", metavar="BACKEND", help="backend to run on (%(default)s)")
    parser.add_argument(
        "--variant", help="variant of every graph, such as primitive-fp32 (default: the best that runs)"
    )
    parser.add_argument(
        "--recipe", help="quantization recipe, such as fp8 (default: unquantized, or the only one there)"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: one per physical core)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> int:
    from motedge.bundle import Bundle
    from motedge.runtime.engine import EngineOptions
    from motedge.runtime.verify import verify_bundle

    options = EngineOptions(threads=args.threads)
    reports = verify_bundle(
        Bundle.open(args.bundle), backend=args.engine, variant=args.variant, recipe=args.recipe, options=options
    )
    passed = all(report.passed is not False for report in reports)
    if args.json:
        result = {"schema": "motedge.verify/v1", "passed": passed, "samples": [r.to_dict() for r in reports]}
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        print("\n".join(_lines(reports)))
    return EXIT_OK if passed else EXIT_GATE_FAILED


def _lines(reports: Sequence[SampleReport]) -> Iterator[str]:
    rows = [_COLUMNS, *(row for report in reports for row in _rows(report))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    for report in reports:
        if report.none is not None:
            yield f"{report.sample}: none: {report.none}"
        if report.gate is not None and report.passed is False:
            yield f"{report.sample}: expected cosine >= {report.gate.cosine}, relative L2 <= {report.gate.relative_l2}"
        if report.failure is not None:
            yield f"{report.sample}: {report.failure}"


def _rows(report: SampleReport) -> Iterator[tuple[str, ...]]:
    variant = ", ".join(dict.fromkeys(report.variants.values())) or "-"
    if report.none is not None or report.failure is not None or report.gate is None:
        yield (report.sample, "-", variant, "-", "-", "-", "-", "none" if report.passed is None else "FAIL")
        return
    for index, c in enumerate(report.comparisons):
        duration = format_ms(report.duration_ms) if index == 0 and report.duration_ms is not None else ""
        result = "pass" if c.passes(report.gate) else f"FAIL, {c.non_finite} not finite" if c.non_finite else "FAIL"
        name = report.sample if index == 0 else ""
        yield (
            name,
            c.tensor,
            variant,
            _number(c.cosine, ".8f"),
            _number(c.relative_l2, ".2e"),
            _number(c.max_abs_error, ".2e"),
            duration,
            result,
        )


def _number(value: Optional[float], form: str) -> str:
    return "-" if value is None else format(value, form)
