"""Full-size quantization on this machine: time, peak memory and size of every recipe.

Every measurement is a process of its own, so that its peak memory is its own. The first recipe calibrates (one
observation, the whole loop); the others reuse its ranges, as a user would. The full fidelity report of one recipe is
measured apart, because on a CPU it takes longer than all the rest.

    python benchmarks/quantize_scale.py --bundle edge-full-bundle --data DATASET --instruction TEXT --work out/scale
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from conditions import collect_conditions, load_average

# Recipe -> further options. AWQ searches on one forward here: its time grows with their number
RECIPES = {
    "fp8": ["--observations", "1", "--held-out", "1"],
    "int8-sq": [],
    "nvfp4": [],
    "mixed": [],
    "w8a16": [],
    "int4-awq": ["--awq-forwards", "1"],
}
MEMORY_AIM_GB = 6.0


def main() -> int:
    """Runs every measurement, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="an exported bundle, one variant")
    parser.add_argument("--data", type=Path, required=True, help="a data set to calibrate on")
    parser.add_argument("--instruction", default="put the cup down", help="where the data set has no task text")
    parser.add_argument("--work", type=Path, required=True, help="a folder for quantized bundles")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--no-report", action="store_true", help="leave out the full fidelity report")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    conditions = collect_conditions()  # before the work, so that the load average is not our own
    rows = [_quantize(args, recipe, "weights") for recipe in args.recipes]
    if not args.no_report:
        rows.append(_quantize(args, args.recipes[0], "full"))
    manifest = json.loads((args.bundle / "manifest.json").read_text())
    result = {
        "schema": "motedge.benchmark/v1",
        "benchmark": "quantize_scale",
        "conditions": conditions,
        "load_average_after": load_average(),
        "model": {name: manifest["model"].get(name) for name in ("family", "variant")},
        "shape_set": manifest["shape_set"],
        "variants": sorted({name for graph in manifest["graphs"].values() for name in graph["variants"]}),
        "note": "random weights; peak memory is ru_maxrss, which counts mapped pages of weight files as well; "
        f"aim: below {MEMORY_AIM_GB:g} GB",
        "rows": rows,
    }
    args.results.mkdir(parents=True, exist_ok=True)
    target = args.results / f"quantize_scale_{manifest['model']['family']}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{target}")
    return 0


def _quantize(args: argparse.Namespace, recipe: str, report: str) -> dict[str, Any]:
    """One `motedge quantize` in a process of its own."""
    out = args.work / "quantized"
    command = [sys.executable, "-m", "motedge", "quantize", str(args.bundle), "--recipe", recipe, "--out", str(out)]
    command += ["--calibration", str(args.data), "--instruction", args.instruction, "--report", report]
    command += ["--observations", "1", "--held-out", "1", *RECIPES[recipe], "--engine", "torch"]
    first = out / "calibration" / args.recipes[0]
    if first.is_dir() and recipe != args.recipes[0]:
        command += ["--reuse", str(first)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stdout = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):  # 1: the gate failed, as it should on random weights
        raise SystemExit(f"{recipe} failed with {code}:\n{stdout}")
    row = {
        "recipe": recipe,
        "report": report,
        "seconds": round(seconds, 1),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
        "exit_code": code,
        "graphs": _sizes(args.bundle, out, recipe),
    }
    sizes = ", ".join(f"{name} {100 * s['ratio']:.1f} %" for name, s in row["graphs"].items())
    print(f"{recipe:<10} {report:<8} {seconds:7.1f} s  peak {row['peak_gb']:5.2f} GB  {sizes}", flush=True)
    return row


def _sizes(source: Path, quantized: Path, recipe: str) -> dict[str, dict[str, float]]:
    """Bytes of each graph's weights before and after."""
    before, after = (json.loads((root / "manifest.json").read_text())["graphs"] for root in (source, quantized))
    found = {}
    for graph, entry in after.items():
        for name, variant in entry["variants"].items():
            if variant["recipe"] == recipe:
                base = before[graph]["variants"][name.removesuffix(f"-{recipe}")]
                old = sum((source / file).stat().st_size for file in base["weights"])
                new = sum((quantized / file).stat().st_size for file in variant["weights"])
                found[graph] = {"bytes": old, "quantized_bytes": new, "ratio": round(new / old, 4)}
    return found


if __name__ == "__main__":
    sys.exit(main())
