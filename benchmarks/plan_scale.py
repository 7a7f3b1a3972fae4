"""Full-size plans on this machine: how long they take, and planned activation memory against TensorRT-RTX's own.

The builder states an engine's activation memory when it is done ("Total Activation Memory"), without a GPU, so every
graph is built once. Each build is a process of its own; graphs that this machine's memory can't build are left out.

    python benchmarks/plan_scale.py --bundle edge-full nano-full --work /somewhere/with/5-GB
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from conditions import collect_conditions

from motedge.bundle import Bundle
from motedge.memory import available_memory
from motedge.targets.builders.builder import BuildRequest
from motedge.targets.builders.registry import builder_for
from motedge.targets.builders.selection import asked_types, choose
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.catalog import load_target
from motedge.targets.plan import PlanOptions, make_plan
from motedge.targets.plan.figures import GraphFigures
from motedge.targets.plan.make import plan_all

TARGET = "rtx-5090"
_STATED = re.compile(r"Total Activation Memory: (\d+) bytes")


def main() -> int:
    """Plans, builds, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, nargs="+", required=True, help="full-size bundles")
    parser.add_argument("--work", type=Path, help="a folder for engines, each removed after its build")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--build", metavar="GRAPH", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        return _build(Bundle.open(args.bundle[0]), args.build, args.work)
    conditions = collect_conditions()
    plans, activations = [], []
    for root in args.bundle:
        bundle = Bundle.open(root)
        model = f"{bundle.manifest.model['family']} {bundle.manifest.model['variant']}"
        plans.append({"model": model, **_time(bundle)})
        print(f"{model}: all devices in {plans[-1]['all_devices_s']:.2f} s")
        if args.work is not None:
            activations += [{"model": model, **row} for row in _activations(bundle, root, args.work)]
    result = {
        "schema": "motedge.benchmark/v1",
        "benchmark": "plan_scale",
        "conditions": {**conditions, "builder": f"tensorrt-rtx {builder_for(load_target(TARGET)).version()}"},
        "note": "planned: by liveness at the largest sizes of the profile, with the workspace that every engine has",
        "plans": plans,
        "activations": activations,
    }
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "plan_scale.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _time(bundle: Bundle) -> dict[str, Any]:
    """Seconds of planning, graphs read anew each time."""
    began = time.perf_counter()
    entries = plan_all(bundle, PlanOptions())
    all_s = time.perf_counter() - began
    began = time.perf_counter()
    make_plan(bundle, load_target("jetson-orin-nano-8gb"))
    one_s = time.perf_counter() - began
    return {"devices": len(entries), "all_devices_s": round(all_s, 3), "one_device_with_advice_s": round(one_s, 3)}


def _activations(bundle: Bundle, root: Path, work: Path) -> list[dict[str, Any]]:
    plan = make_plan(bundle, load_target(TARGET), figures=GraphFigures(bundle), advise=False)
    rows = []
    for graph in plan.graphs:
        free = available_memory()
        if free is not None and graph.build_peak_bytes > free:
            print(f"{graph.graph}: {graph.build_peak_bytes / 1e9:.1f} GB to build, {free / 1e9:.1f} GB free: left out")
            continue
        command = [sys.executable, __file__, "--bundle", str(root), "--work", str(work), "--build", graph.graph]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        stated = _STATED.findall(done.stdout)
        if not stated:
            print(f"{graph.graph}: not built: {done.stderr.strip().splitlines()[-1:]}")
            continue
        row = {"graph": graph.graph, "variant": graph.variant, "planned_bytes": graph.activation_bytes}
        rows.append(
            {**row, "stated_bytes": int(stated[-1]), "ratio": round(graph.activation_bytes / int(stated[-1]), 3)}
        )
        print(f"{graph.graph}: planned {graph.activation_bytes / 1e6:.1f} MB, stated {int(stated[-1]) / 1e6:.1f} MB")
    return rows


def _build(bundle: Bundle, graph: str, work: Path) -> int:
    """One engine; the library's log to stdout."""
    logging.basicConfig(stream=sys.stdout, level=logging.DEBUG, format="%(message)s")
    target = load_target(TARGET)
    builder = builder_for(target)
    choice = choose(bundle, dialects=builder.dialects(), compute_capability=target.compute_capability, graphs=[graph])[
        0
    ]
    work.mkdir(parents=True, exist_ok=True)
    out = work / "engine"
    try:
        builder.build(
            BuildRequest(
                graph=graph,
                variant=choice.variant,
                model=bundle.path(choice.entry.file),
                contract=bundle.contract(graph),
                dtype=choice.entry.dtype,
                asked=asked_types(bundle, choice),
                capabilities=builder.check(target, BuildSettings()),
                settings=BuildSettings(),
                out=out,
                target=target.id,
            ),
            lambda phase, share: None,
        )
    finally:
        out.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
