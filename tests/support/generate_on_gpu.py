"""Every mode of the generator through real engines on this machine's GPU: one line of JSON a check, a file of results.

    PYTHONPATH=.:benchmarks:tests/support python3 tests/support/generate_on_gpu.py BUNDLE --engine tensorrt --build \
        --variants primitive17-fp16 --reference REFERENCE.npz

Python 3.9, numpy and cuda-bindings are enough beside the engine library. Bundle and reference are made elsewhere by
generate_reference.py; without a reference, onnxruntime on the CPU answers here. Exit code 1 when a check failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional

import generate_checks
import policy_on_gpu
from generate_reference import make_reference

from motedge.bundle import Bundle


class Bench(policy_on_gpu.Bench):
    """What all checks share, and the findings so far."""

    def __init__(self, args: argparse.Namespace, variant: str, reference: Dict[str, Any]) -> None:
        super().__init__(args, variant, reference)
        self.rounds: int = args.rounds

    def load(self, bundle: Optional[Path] = None, **options: Any) -> Any:
        """The generator on the engines that are tested."""
        from motedge.runtime.generate import load_generator

        chosen = {"engine": self.engine, "variant": self.variant, "check": "size", **options}
        return load_generator(self.bundle if bundle is None else bundle, **chosen)


def check_build(bench: Any) -> None:
    """An engine of each graph for this GPU, by what `motedge build` does; one that can't be built stops no other."""
    for graph in Bundle.open(bench.bundle).manifest.graphs:
        name = f"an engine of {graph}"
        try:
            policy_on_gpu.build_graphs(bench, name, [graph])
        except Exception as error:  # noqa: BLE001 - whatever breaks it is its result
            bench.say(name, False, error=f"{type(error).__name__}: {error}"[:1500])


def main(arguments: Optional[List[str]] = None) -> int:
    """Runs all checks of every variant; 0 when each passed."""
    args = _parse(arguments)
    reference = policy_on_gpu.read_reference(args, make_reference)
    conditions, target = policy_on_gpu.machine_and_target(args, "generate")
    findings: List[Dict[str, Any]] = []

    keep = partial(policy_on_gpu.keep, target, "generate_on_gpu", conditions, args.engine, [], findings)
    for variant in args.variants:
        bench = Bench(args, variant, reference)
        bench.found, bench.keep = findings, keep
        if args.build:
            bench.run(check_build)
        for check in generate_checks.CHECKS:
            if args.only is None or check.__name__ in args.only:
                bench.run(check)
    failed = [f"{entry['variant']}: {entry['check']}" for entry in findings if not entry["passed"]]
    sys.stdout.write(json.dumps({"checks": len(findings), "failed": failed, "results": target.name}) + "\n")
    return 1 if failed or not findings else 0


def _parse(arguments: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine", default="onnxruntime-cuda", help="or tensorrt, tensorrt-rtx")
    parser.add_argument("--variants", default="fused-fp16", type=lambda text: text.split(","), help="with commas")
    parser.add_argument("--reference", type=Path, help="of generate_reference.py (default: made here, on the CPU)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="folder of the JSON")
    parser.add_argument("--build", action="store_true", help="build the engines first")
    parser.add_argument("--optimization-level", type=int, help="of the builder: 0 is quickest (default: the library's)")
    parser.add_argument("--rounds", type=int, default=40, help="of five requests each, without growth (default 40)")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of checks, such as check_agreement")
    args = parser.parse_args(arguments)
    args.ticks = 0
    return args


if __name__ == "__main__":
    sys.exit(main())
