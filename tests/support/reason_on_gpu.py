"""A bundle's reasoner, and a policy beside it, on this machine's GPU: a line of JSON a check, and a file of results.

    PYTHONPATH=.:benchmarks:tests/support python3 tests/support/reason_on_gpu.py BUNDLE --engine tensorrt --build \
        --variants primitive17-fp32 --reference REFERENCE.npz

Python 3.9, numpy and cuda-bindings are enough beside motedge's own needs and the engine library: neither torch, onnx
nor pytest. The reference is made on any machine by reason_reference.py; without it, onnxruntime on the CPU answers
here. For a large model, whose answers it can't give, `--only graph,growth,weights,latency`, which compare nothing with
it. Exit code 1 when a check failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import reason_checks
from policy_on_gpu import check_build, keep, machine_and_target
from reason_reference import read_reference, written

from motedge.runtime.cuda.choose import open_cuda
from motedge.runtime.policy import GpuOptions

# Tokens of prompt and reply
CAPACITY = 1024


class Answers:
    """The reference, read or made once a check asks for it: not all do, and the CPU can't answer for a large model."""

    def __init__(self, path: Optional[Path], bundle: Path) -> None:
        self._path, self._bundle = path, bundle
        self._values: Optional[Dict[str, Any]] = None

    def __getitem__(self, name: str) -> Any:
        if self._values is None:
            self._values = read_reference(self._path, self._bundle)
        return self._values[name]


class Bench:
    """What all checks share, and the findings so far."""

    def __init__(self, args: argparse.Namespace, variant: str, reference: Any) -> None:
        self.bundle: Path = args.bundle
        self.engine, self.variant, self.reference = args.engine, variant, reference
        self.optimization_level: Optional[int] = args.optimization_level
        self.precision = variant.split("-")[1]
        # onnxruntime's captures allow no calls of other threads
        self.ways = ("sliced", "background") if self.engine.startswith("tensorrt") else ("sliced",)
        self.found: List[Dict[str, Any]] = []
        # Called after each finding
        self.keep: Callable[[], None] = lambda: None

    def say(self, check: str, passed: bool, **facts: Any) -> None:
        """Notes and prints a finding."""
        entry = {"check": check, "variant": self.variant, "passed": bool(passed), **facts}
        self.found.append(entry)
        sys.stdout.write(json.dumps(entry) + "\n")
        sys.stdout.flush()
        self.keep()

    def run(self, check: Callable[[Any], None]) -> None:
        """One group of checks; what breaks it is a finding, and the next group goes on."""
        try:
            check(self)
        except Exception as error:  # noqa: BLE001 - whatever breaks a check is its result
            text = traceback.format_exc(limit=-4)
            self.say(check.__name__, False, error=f"{type(error).__name__}: {error}"[:1500], traceback=text[-1500:])

    def load_reasoner(self, **options: Any) -> Any:
        """The reasoner on the engines that are tested."""
        from motedge.runtime.reasoner.loader import load_reasoner

        chosen = {"gpu": GpuOptions(priority="low"), "capacity": CAPACITY, **self._choice(), **options}
        return load_reasoner(self.bundle, **chosen)

    def load_policy(self, **options: Any) -> Any:
        """The policy likewise."""
        from motedge.runtime.policy import load_policy

        return load_policy(self.bundle, **{**self._choice(), **options})

    def load_both(self, **options: Any) -> Any:
        """The policy that reasons; options are those of thinking."""
        from motedge.runtime.reasoned.loader import load_reasoned_policy

        return load_reasoned_policy(
            self.bundle, reason_checks.reason_options(**options), capacity=CAPACITY, **self._choice()
        )

    @contextlib.contextmanager
    def writing(self, text: str, repeat: int = 1, **options: Any) -> Iterator[Any]:
        """Likewise, with a reasoner that writes a text, so many times over."""
        with contextlib.ExitStack() as opened:
            opened.enter_context(written(self.bundle, text, repeat))
            yield opened.enter_context(self.load_both(**options))

    def used_bytes(self) -> int:
        """Of the GPU's memory, by all, as the driver tells."""
        cuda = open_cuda()
        try:
            with cuda.current():
                free, total = cuda.memory_info()
        finally:
            cuda.close()
        return int(total - free)

    def _choice(self) -> Dict[str, Any]:
        return {"engine": self.engine, "variant": self.variant, "check": "size"}


def main(arguments: Optional[List[str]] = None) -> int:
    """Runs all checks of every variant; 0 when each passed."""
    args = _parse(arguments)
    reference = Answers(args.reference, args.bundle)
    conditions, target = machine_and_target(args, "reason", priorities=True)
    findings: List[Dict[str, Any]] = []
    for variant in args.variants:
        bench = Bench(args, variant, reference)
        bench.keep = partial(keep, target, "reason_on_gpu", conditions, args.engine, findings, bench.found)
        if args.build:
            bench.run(check_build)
        if all(entry["passed"] for entry in bench.found):
            for check in reason_checks.CHECKS:
                if not args.only or check.__name__.replace("check_", "") in args.only:
                    bench.run(check)
        findings += bench.found
    failed = [f"{entry['variant']}: {entry['check']}" for entry in findings if not entry["passed"]]
    sys.stdout.write(json.dumps({"checks": len(findings), "failed": failed, "results": target.name}) + "\n")
    return 1 if failed or not findings else 0


def _parse(arguments: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine", default="onnxruntime-cuda", help="or tensorrt, tensorrt-rtx")
    parser.add_argument("--variants", default="primitive-fp32", type=lambda text: text.split(","), help="with commas")
    parser.add_argument("--reference", type=Path, help="of reason_reference.py (default: made here, on the CPU)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="folder of the JSON")
    parser.add_argument("--build", action="store_true", help="build the engines first")
    parser.add_argument("--optimization-level", type=int, help="of the builder: 0 is quickest (default: the library's)")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of checks, with commas: words,plans")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
