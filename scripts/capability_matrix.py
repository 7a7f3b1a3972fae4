"""Writes docs/capabilities.md from the tests that ran; `--check` only says whether it is current.

pytest --capabilities benchmarks/results/capabilities.json
python scripts/capability_matrix.py
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from motedge.files import atomic_open

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks/results/capabilities.json"
RESULTS = ROOT / "benchmarks/capabilities.toml"
sys.path.insert(0, str(ROOT / "tests/support"))

from capabilities import BACKENDS, FAMILIES, MODES, PROOFS, SCHEMA  # noqa: E402

Entry = Mapping[str, Any]
_NAMES = {"edge": "Edge", "nano": "Nano", "super": "Super", "any": "stand-in"}
_HEAD = """# What runs where

Made by `python scripts/capability_matrix.py` from the tests that ran; don't edit. A cell names the families for which a
test passed, behind the kind of proof. An empty cell means that no test shows it, not that it can't be done.

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 where `--check` finds another text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    page = ROOT / "docs/capabilities.md"
    parser.add_argument("--out", type=Path, default=page, help="the page (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is not current")
    args = parser.parse_args(arguments)
    text = make_page(read_record(RECORD), read_results(RESULTS))
    if args.check:
        current = args.out.exists() and args.out.read_text(encoding="utf-8") == text
        print(f"{args.out.name} is {'current' if current else 'not current: run scripts/capability_matrix.py'}")
        return 0 if current else 1
    with atomic_open(args.out, "w") as stream:
        stream.write(text)
    print(f"{args.out.name}: {len(text.splitlines())} lines")
    return 0


def read_record(path: Path) -> list[Entry]:
    """What `pytest --capabilities` wrote."""
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["schema"] != SCHEMA:
        raise ValueError(f"{path} is of schema {record['schema']}, not {SCHEMA}")
    return list(record["entries"])


def read_results(path: Path) -> list[dict[str, Any]]:
    """What was run on real GPUs, each with device and commit from its result file."""
    entries = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["results"]:
        conditions = json.loads((ROOT / entry["file"]).read_text(encoding="utf-8"))["conditions"]
        device = conditions.get("device") or conditions["gpu"]["name"]
        entries.append({**entry, "device": device, "commit": conditions["commit"]})
    return entries


def make_page(entries: Sequence[Entry], results: Sequence[Entry]) -> str:
    """The whole page."""
    shown = [entry for entry in entries if entry["passed"] and not entry["failed"]]
    parts = [_HEAD, "| proof | what it says |\n|---|---|\n"]
    parts += [f"| {name} | {text} |\n" for name, text in PROOFS.items()]
    parts.append("| **on a GPU** | run on a real one; the table after this one has device, commit and result file |\n")
    parts.append(f"\n| mode | {' | '.join(BACKENDS)} |\n|---{'|---' * len(BACKENDS)}|\n")
    for mode, title in MODES.items():
        cells = [_cell(mode, backend, shown, results) for backend in BACKENDS]
        parts.append(f"| {title} | {' | '.join(cells)} |\n")
    parts.append("\nStand-in: a model of a few bytes in the loop's tests, for what does not depend on the family.\n")
    parts.append("\n## On real GPUs\n\n| mode | backend | family | device | commit | result | what |\n")
    parts.append("|---|---|---|---|---|---|---|\n")
    for entry in results:
        families, file = _families(entry["families"]), Path(entry["file"])
        parts.append(
            f"| {MODES[entry['mode']]} | {entry['backend']} | {families} | {entry['device']} "
            f"| `{_short(entry['commit'])}` | [{file.name}](../{file.as_posix()}) | {entry['what']} |\n"
        )
    parts.append("\n## The tests\n\n| mode | family | backend | proof | test | passed | skipped | commit |\n")
    parts.append("|---|---|---|---|---|---|---|---|\n")
    parts += [_row(entry) for entry in shown]
    parts += _not_shown(entries)
    return "".join(parts)


def _cell(mode: str, backend: str, shown: Sequence[Entry], results: Sequence[Entry]) -> str:
    lines = []
    for proof in PROOFS:
        here = {e["family"] for e in shown if (e["mode"], e["backend"], e["proof"]) == (mode, backend, proof)}
        if here:
            lines.append(f"{proof}: {_families(here)}")
    measured = {family for e in results if (e["mode"], e["backend"]) == (mode, backend) for family in e["families"]}
    if measured:
        lines.append(f"**on a GPU**: {_families(measured)}")
    return "<br>".join(lines)


def _families(names: Collection[str]) -> str:
    return ", ".join(_NAMES[family] for family in FAMILIES if family in names)


def _row(entry: Entry) -> str:
    file, _, name = entry["test"].partition("::")
    return (
        f"| {entry['mode']} | {_NAMES[entry['family']]} | {entry['backend']} | {entry['proof']} | [{name}](../{file}) "
        f"| {entry['passed']} | {entry['skipped']} | `{_short(entry['commit'])}` |\n"
    )


def _not_shown(entries: Sequence[Entry]) -> list[str]:
    """Tests that failed, or were only skipped: they show nothing, and are named all the same."""
    rest = [entry for entry in entries if entry["failed"] or not entry["passed"]]
    if not rest:
        return []
    lines = (f"{e['test']} ({e['mode']}, {e['family']}): {e['failed']} failed, {e['skipped']} skipped" for e in rest)
    return ["\n## Tests that show nothing yet\n\n", *(f"- {line}\n" for line in lines)]


def _short(commit: str) -> str:
    return commit.split()[0][:7]


if __name__ == "__main__":
    sys.exit(main())
