"""A policy's ticks through real engines on this machine's GPU: one line of JSON a check, and a file of results.

    PYTHONPATH=.:benchmarks:tests/support python3 tests/support/policy_on_gpu.py BUNDLE --engine tensorrt --build \
        --variants primitive17-fp16 --reference REFERENCE.npz

Python 3.9, numpy and cuda-bindings are enough beside the engine library: neither onnx nor pytest. The reference is made
on any machine by policy_reference.py; without it, onnxruntime on the CPU answers here. Exit code 1 when a check failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import deadline_checks
import numpy as np
import policy_checks
import policy_failures
from gpu_conditions import collect_gpu_conditions, gpu_id
from policy_reference import make_reference

from motedge.bundle import Bundle
from motedge.files import write_json
from motedge.runtime.cuda.choose import open_cuda

# Ends in a lost context: in a process of its own
CRASH = "crash"
CRASH_LIMIT_S = 180


class Bench:
    """What all checks share, and the findings so far."""

    def __init__(self, args: argparse.Namespace, variant: str, reference: Dict[str, Any]) -> None:
        self.bundle: Path = args.bundle
        self.engine, self.variant, self.reference = args.engine, variant, reference
        self.ticks: int = args.ticks
        self.optimization_level: Optional[int] = args.optimization_level
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

    def load(self, bundle: Optional[Path] = None, **options: Any) -> Any:
        """The policy on the engines that are tested."""
        from motedge.runtime.policy import load_policy

        chosen = {"engine": self.engine, "variant": self.variant, "check": "size", **options}
        return load_policy(self.bundle if bundle is None else bundle, **chosen)

    def run(self, check: Callable[[Any], None]) -> None:
        """One group of checks; what breaks it is a finding, and the next group goes on."""
        try:
            check(self)
        except Exception as error:  # noqa: BLE001 - whatever breaks a check is its result
            text = traceback.format_exc(limit=-4)
            self.say(check.__name__, False, error=f"{type(error).__name__}: {error}"[:1500], traceback=text[-1500:])


def main(arguments: Optional[List[str]] = None) -> int:
    """Runs all checks of every variant; 0 when each passed."""
    args = _parse(arguments)
    reference = read_reference(args, make_reference)
    if args.only == CRASH:
        bench = Bench(args, args.variants[0], reference)
        bench.run(policy_failures.check_crash)
        return 0 if bench.found and all(entry["passed"] for entry in bench.found) else 1
    conditions, target = machine_and_target(args, "policy")
    findings: List[Dict[str, Any]] = []
    for variant in args.variants:
        bench = Bench(args, variant, reference)

        bench.keep = partial(keep, target, "policy_on_gpu", conditions, args.engine, findings, bench.found)
        if args.build:
            bench.run(check_build)
            if not bench.found[-1]["passed"]:
                findings += bench.found
                continue
        for check in (*policy_checks.CHECKS, *deadline_checks.CHECKS, *policy_failures.CHECKS):
            bench.run(check)
        _crash(bench, args)
        findings += bench.found
    failed = [entry for entry in findings if not entry["passed"]]
    names = [f"{entry['variant']}: {entry['check']}" for entry in failed]
    sys.stdout.write(json.dumps({"checks": len(findings), "failed": names, "results": target.name}) + "\n")
    return 1 if failed or not findings else 0


def check_build(bench: Bench) -> None:
    """Engines of the variant for this GPU, by what `motedge build` does."""
    build_graphs(bench, "engines are built", list(Bundle.open(bench.bundle).manifest.graphs))


def build_graphs(bench: Bench, check: str, graphs: List[str]) -> None:
    """Engines of some graphs; `check` is what the finding is called."""
    from motedge.targets.builders.job import BuildOptions, build_engines
    from motedge.targets.builders.settings import BuildSettings
    from motedge.targets.catalog import load_target

    cuda = open_cuda()
    target = load_target(gpu_id(cuda.facts.name))
    cuda.close()
    settings = BuildSettings(optimization_level=bench.optimization_level)
    options = BuildOptions(graphs=graphs, variant=bench.variant, builder=bench.engine, settings=settings)
    report = build_engines(Bundle.open(bench.bundle), target, options, lambda graph, phase, share: None)
    engines = [*report.built, *report.skipped]
    facts = {engine.file: {"bytes": engine.bytes, "seconds": engine.seconds} for engine in engines}
    bench.say(
        check,
        len(engines) == len(graphs),
        engines=facts,
        settings=settings.to_dict(),
    )


def _parse(arguments: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine", default="onnxruntime-cuda", help="or tensorrt, tensorrt-rtx")
    parser.add_argument("--variants", default="fused-fp16", type=lambda text: text.split(","), help="with commas")
    parser.add_argument("--reference", type=Path, help="of policy_reference.py (default: made here, on the CPU)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="folder of the JSON")
    parser.add_argument("--build", action="store_true", help="build the engines first")
    parser.add_argument("--optimization-level", type=int, help="of the builder: 0 is quickest (default: the library's)")
    parser.add_argument("--ticks", type=int, default=1000, help="without growth (default 1000)")
    parser.add_argument("--only", choices=(CRASH,), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def read_reference(args: argparse.Namespace, make: Callable[[Path], Dict[str, Any]]) -> Dict[str, Any]:
    """The arrays of the file that was given, or made here on the CPU."""
    if args.reference is None:
        return make(args.bundle)
    with np.load(args.reference) as archive:
        return {name: archive[name] for name in archive.files}


def machine_and_target(args: argparse.Namespace, what: str, **cuda_options: Any) -> Any:
    """The machine, and the file of results of a program that checks `what`; options are those of `open_cuda`."""
    conditions = collect_gpu_conditions()
    cuda = open_cuda(**cuda_options)
    conditions["cuda"] = {"provider": cuda.provider, "choice": cuda.choice, "facts": vars(cuda.facts)}
    cuda.close()
    label = "ort"
    if args.engine != "onnxruntime-cuda":
        module = __import__(args.engine.replace("-", "_"))
        conditions["versions"][args.engine] = module.__version__
        label = "trt" + "".join(module.__version__.split(".")[:2])
    args.results.mkdir(parents=True, exist_ok=True)
    return conditions, args.results / f"{label}_{what}_{gpu_id(conditions['device'])}.json"


def keep(target: Path, test: str, conditions: Any, engine: str, before: List[Any], now: List[Any]) -> None:
    """Writes what is known so far."""
    kept = {"conditions": conditions, "engine": engine, "checks": [*before, *now]}
    write_json(target, {"schema": "motedge.device_test/v1", "test": test, **kept})


def _crash(bench: Bench, args: argparse.Namespace) -> None:
    """The check that loses the context, in a child; its findings are taken over."""
    command = [sys.executable, __file__, str(args.bundle), "--engine", args.engine, "--variants", bench.variant]
    command += ["--only", CRASH]
    if args.reference is not None:
        command += ["--reference", str(args.reference)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CRASH_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        bench.say("a crash on the GPU", False, error=f"no end within {CRASH_LIMIT_S} s")
        return
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    for entry in lines:
        bench.say(**{key: value for key, value in entry.items() if key != "variant"})
    if done.returncode not in (0, 1) or not lines:
        bench.say("a crash on the GPU", False, exit_code=done.returncode, error=done.stderr[-1500:])


if __name__ == "__main__":
    sys.exit(main())
