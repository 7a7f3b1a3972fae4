"""A policy's tick on this machine's GPU, full size, random weights: every backend that is here, in one run.

Generator step and whole tick, ours on onnxruntime's CUDA provider and PyTorch's, beside the roofline and the library
kernels measured in the same run; what the host costs; memory. Each section is a process of its own with its own limit:
one that fails or takes too long is recorded as such, and the rest goes on. The JSON is written after each.

    python tests/support/gpu_bundle.py fill BUNDLE
    python benchmarks/gpu_tick.py --bundle BUNDLE
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from conditions import SCHEMA
from gpu_conditions import collect_gpu_conditions, gpu_id
from gpu_scene import GpuScene, Report

from motedge.bundle import Bundle
from motedge.errors import MotedgeError
from motedge.files import write_json

# Section -> seconds that it may take; each is a module of that name with `run(scene, report)`
SECTIONS = {
    "roofline": 90,
    "steps": 150,
    "ticks": 150,
    "growth": 120,
    "trace": 120,
    "compile": 420,
}
NOTE = "weights are random: the time is that of real weights of this size, the actions mean nothing"
ERROR_CHARACTERS = 3000


def main(arguments: list[str] | None = None) -> int:
    """Runs the sections; 1 when one of them failed or found that two ways do not compute the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="a bundle with its weights")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON")
    parser.add_argument("--variant", default="fused-fp16", help="whose weights all ways take (default fused-fp16)")
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"default {','.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, default=15, help="times that every way is run (default 15)")
    parser.add_argument("--limit-s", type=float, default=540.0, help="for all sections together (default 540)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
    parser.add_argument("--size", choices=("full", "small", "tiny"), default="full", help="of the bundle's model")
    parser.add_argument("--child", choices=tuple(SECTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    wanted = args.sections.split(",")
    for name in wanted:
        if name not in SECTIONS:
            parser.error(f"there is no section {name!r}: {', '.join(SECTIONS)}")
    try:
        bundle = Bundle.open(args.bundle)
        bundle.variant("gen_step", args.variant)
        if args.child:
            scene = GpuScene(bundle, args.variant, args.device, args.size, args.rounds)
            importlib.import_module(f"gpu_{args.child}").run(scene, Report(args.out))
            return 0
        return _measure(args, bundle, wanted)
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _measure(args: argparse.Namespace, bundle: Bundle, wanted: list[str]) -> int:
    conditions = collect_gpu_conditions()
    target = args.results / f"gpu_tick_{gpu_id(conditions['device'])}.json"
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "benchmark": "gpu_tick",
        "conditions": conditions,
        "note": NOTE,
        "bundle": {
            "model": {k: bundle.manifest.model.get(k) for k in ("family", "variant")},
            "size": args.size,
            "shape_set": bundle.manifest.shape_set,
            "policy": bundle.manifest.policy,
            "variant": args.variant,
        },
        "rounds": args.rounds,
        "sections": {},
    }
    started = time.monotonic()
    for name in wanted:
        left = args.limit_s - (time.monotonic() - started)
        result["sections"][name] = run_section(args, name, min(SECTIONS[name], left))
        result["failures"] = failures(result["sections"])
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, result)
        state = result["sections"][name]["state"]
        print(f"{name:<10} {state:<10} {result['sections'][name]['seconds']:>7.1f} s", flush=True)
    for line in result["failures"]:
        print(line)
    print(f"written to {target}")
    return 1 if result["failures"] else 0


def run_section(args: argparse.Namespace, name: str, limit_s: float) -> dict[str, Any]:
    """One section in a process of its own: what it found, and how it ended ("done", "failed", "cut off", "no time")."""
    if limit_s < 10:
        return {"state": "no time", "seconds": 0.0, "found": {}}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, __file__, "--child", name, "--out", str(out), "--bundle", str(args.bundle)]
        command += ["--variant", args.variant, "--rounds", str(args.rounds)]
        command += ["--device", args.device, "--size", args.size]
        start, error = time.monotonic(), ""
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
            state = "done" if done.returncode == 0 else "failed"
            if done.returncode != 0:
                error = f"exit {done.returncode}\n{done.stdout[-ERROR_CHARACTERS:]}\n{done.stderr[-ERROR_CHARACTERS:]}"
        except subprocess.TimeoutExpired:
            state, error = "cut off", f"after {limit_s:.0f} s"
        entry: dict[str, Any] = {
            "state": state,
            "seconds": round(time.monotonic() - start, 1),
            "found": Report.read(out),
        }
    return {**entry, "error": error} if error else entry


def failures(sections: dict[str, Any]) -> list[str]:
    """In words: sections and entries that failed, and ways that do not compute the same."""
    lines = []
    for name, section in sections.items():
        if section["state"] != "done":
            last = section.get("error", "").strip().splitlines()
            lines.append(f"{name}: {section['state']}: {last[-1] if last else ''}")
        for what, entry in section["found"].items():
            if isinstance(entry, dict) and "failed" in entry:
                lines.append(f"{name}: {what}: {entry['failed']}")
        same = section["found"].get("parity", {}).get("same_maths", {})
        lines += [f"{name}: {way} does not compute the same" for way, ok in same.items() if not ok]
    return lines


if __name__ == "__main__":
    sys.exit(main())
