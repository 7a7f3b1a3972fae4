"""Writes docs/targets.md from the catalogue, the recipes and the evidence; `--check` only says whether it is current.

python scripts/targets_page.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from motedge.files import atomic_open
from motedge.targets.matrix import make_page

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Returns the exit code: 1 where `--check` finds another text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "targets.md", help="the page (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is not current")
    args = parser.parse_args()
    text = make_page(ROOT)
    if args.check:
        current = args.out.exists() and args.out.read_text(encoding="utf-8") == text
        print(f"{args.out.name} is {'current' if current else 'not current: run scripts/targets_page.py'}")
        return 0 if current else 1
    with atomic_open(args.out, "w") as stream:
        stream.write(text)
    print(f"{args.out.name}: {len(text.splitlines())} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
