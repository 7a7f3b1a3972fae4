"""`motedge bench` or `motedge profile` on this machine's GPU, as it writes it, with a benchmark's conditions beside it.

    python benchmarks/gpu_reports.py bench_road bench BUNDLE QUANTIZED --observations scenes --engine onnxruntime-cuda
    python benchmarks/gpu_reports.py profile profile BUNDLE --engine onnxruntime-cuda

Writes results/NAME_CARD.json: the command's own document and `conditions`, which have what it does not record: the
commit, and whether files differed from it. The command's other files (page, journal, trace) are in --work.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_conditions import collect_gpu_conditions, gpu_id

from motedge.bench.report import load_bench
from motedge.cli.main import main as motedge
from motedge.errors import MotedgeError
from motedge.files import require_writable, write_json
from motedge.profile.report import load_profile

LOADERS: dict[str, Callable[[Path], dict[str, Any]]] = {"bench": load_bench, "profile": load_profile}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; its exit code. What a cell of the bench failed with is in the result all the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the result")
    parser.add_argument("command", choices=tuple(LOADERS))
    parser.add_argument("--work", type=Path, help="folder of the command's own files (default: one that is removed)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON")
    args, options = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        out = args.work or Path(folder) / args.name
        try:
            conditions = collect_gpu_conditions()
            target = args.results / f"{args.name}_{gpu_id(conditions['device'])}.json"
            require_writable(target)
            code = motedge([args.command, *options, "--out", str(out)])
            document = LOADERS[args.command](out)
        except MotedgeError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        write_json(target, {**document, "conditions": conditions})
    print(f"written {target}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
