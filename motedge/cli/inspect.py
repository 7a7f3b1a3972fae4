"""`motedge inspect`: what a bundle holds, and with `--check` whether it is whole."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from motedge.errors import EXIT_GATE_FAILED, EXIT_OK
from motedge.units import format_bytes

if TYPE_CHECKING:
    from motedge.bundle import Bundle

_VARIANT_COLUMNS = ("graph", "variant", "dialect", "dtype", "opset", "nodes", "parameters", "size")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "inspect",
        help="show what a bundle holds",
        description="Show a bundle's model, shape set, policy defaults, graphs, tables and samples. Reads the manifest "
        "alone, unless --check is given.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--check", action="store_true", help="verify size and sha256 of every file; exit 1 on damage")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    from motedge.bundle import Bundle
    from motedge.bundle.summary import summarize

    bundle = Bundle.open(args.bundle)
    summary = summarize(bundle)
    damage = _check(bundle, summary) if args.check else []
    print(json.dumps(summary, indent=2) if args.json else "\n".join(_lines(summary)))
    for problem in damage:
        print(f"motedge: error: {problem}", file=sys.stderr)
    return EXIT_GATE_FAILED if damage else EXIT_OK


def _check(bundle: Bundle, summary: dict[str, Any]) -> Sequence[Exception]:
    from motedge.bundle.summary import find_damage, unlisted_files

    damage = find_damage(bundle)
    summary["check"] = {
        "ok": not damage,
        "damage": [{"what": e.what, "expected": e.expected, "got": e.got, "fix": e.fix} for e in damage],
        "unlisted_files": unlisted_files(bundle),
    }
    return damage


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    from motedge.bundle.model_words import plain_model

    model = summary["model"]
    yield f"bundle     {summary['bundle']}"
    words = plain_model(f"{model['family']} {model['variant']}", summary["policy"].get("embodiment"))
    yield f"model      {words}, revision {model['revision'] or 'not recorded'}"
    yield f"shape set  {_fields(summary['shape_set'])}"
    yield f"policy     {_fields(summary['policy']) or 'none'}"
    yield ""
    yield from _table(_VARIANT_COLUMNS, [_variant_row(v) for v in summary["variants"]])
    yield ""
    tables = [(n, t["dtype"], _shape(t["shape"]), format_bytes(t["bytes"])) for n, t in summary["tables"].items()]
    yield from _table(("table", "dtype", "shape", "size"), tables)
    yield ""
    yield from _table(("sample", "content"), [(name, _sample(s)) for name, s in summary["samples"].items()])
    yield ""
    total = summary["total"]
    yield f"total      {format_bytes(total['bytes'])} in {total['files']} files"
    yield from (f"note       {note}" for note in summary["notes"])
    if "check" in summary:
        check = summary["check"]
        yield f"check      {'every file is as exported' if check['ok'] else str(len(check['damage'])) + ' problems'}"
        yield from (f"unlisted   {name}" for name in check["unlisted_files"])


def _variant_row(variant: Mapping[str, Any]) -> tuple[str, ...]:
    values = (variant[name] for name in _VARIANT_COLUMNS[:-1])
    cells = ["-" if v is None else f"{v:,}" if isinstance(v, int) else str(v) for v in values]
    return (*cells, format_bytes(variant["bytes"]))


def _sample(sample: Mapping[str, Any]) -> str:
    if "none" in sample:
        return f"none: {sample['none']}"
    return f"{sample['file']}, reference {sample.get('reference', 'not recorded')}"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _fields(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_value(key, value)}" for key, value in values.items())


def _value(key: str, value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(map(str, value)) if key.endswith("_interval") else _shape(value)
    return "none" if value is None else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        yield f"{header[0]}      none"
        return
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
