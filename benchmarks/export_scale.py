"""Full-size export on this machine: time and peak memory of every graph and variant, against one naive call.

Each measurement is a process of its own, so that its peak memory is its own. The naive way is what the exporter's
manual shows: load the module's weights, call torch.onnx.export once, save with external data.

    python benchmarks/export_scale.py --checkpoint edge-full --out /somewhere/with/20-GB --results benchmarks/results
    python benchmarks/export_scale.py --checkpoint edge-full --out /somewhere --sets fused-bf16 --extras all

With --extras, each graph beside the policy's is measured alone as well, its weights written anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from conditions import collect_conditions

SETS = {
    "fused-bf16": "fused-bf16",
    "fused-fp16": "fused-fp16",
    "primitive-fp32": "primitive-fp32",
    "primitive-fp16": "primitive-fp16",
}
GRAPHS = ("und_prefill", "gen_step", "vae_encoder")
NAIVE_VARIANT = "fused-bf16"


def main() -> int:
    """Runs every measurement, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint; made at full size (9 GB) if it is not there")
    parser.add_argument("--family", default="edge")
    parser.add_argument("--out", type=Path, required=True, help="a folder for bundles; emptied after each measurement")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", nargs="*", choices=["ours", "graphs", "naive"], help="(default: all that there are)")
    parser.add_argument("--extras", default="", help="groups as motedge export takes them; all: those of the family")
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS), help="variants of ours")
    parser.add_argument("--sparse", action="store_true", help="make the checkpoint of holes: no disk, all zeros")
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "WHAT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return _measure(args.checkpoint, args.out, *args.measure, _groups(args.checkpoint, args.extras))
    if not args.checkpoint.exists():
        command = ["checkpoint", "make", str(args.checkpoint), "--family", args.family, "--size", "full"]
        command += ["--variant", "policy-droid", *(["--sparse"] if args.sparse else [])]
        subprocess.run([sys.executable, "-m", "motedge", *command], check=True)
    conditions = collect_conditions()  # before the work, so that the load average is not our own
    groups = _groups(args.checkpoint, args.extras)
    only = args.only or (["ours", "graphs"] if groups else ["ours", "naive"])
    work = [("ours", name) for name in args.sets if "ours" in only]
    work += [("graph", f"{g} {name}") for name in args.sets for g in _extra_names(groups) if "graphs" in only]
    work += [("naive", graph) for graph in GRAPHS if "naive" in only]
    rows: list[dict[str, Any]] = []
    for kind, what in work:
        rows.append(_child(args, kind, what))
        # After each row: what was measured stays if the run is stopped
        _write(args, conditions, groups, rows)
    return 0


def _write(args: argparse.Namespace, conditions: dict[str, Any], groups: list[str], rows: list[dict[str, Any]]) -> None:
    result = {
        "schema": "motedge.benchmark/v1",
        "benchmark": "export_scale",
        "conditions": conditions,
        "sparse_checkpoint": args.sparse,
        "extras": groups,
        "note": "random weights, or zeros of a sparse checkpoint; peak memory is ru_maxrss, which counts mapped pages "
        "of the checkpoint as well",
        "rows": rows,
    }
    args.results.mkdir(parents=True, exist_ok=True)
    name = f"export_scale_{args.family}{'_extras' if groups else ''}.json"
    (args.results / name).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _child(args: argparse.Namespace, kind: str, what: str) -> dict[str, Any]:
    shutil.rmtree(args.out, ignore_errors=True)
    os.sync()  # the previous measurement's pages must not be written back during this one
    command = [sys.executable, __file__, "--checkpoint", str(args.checkpoint), "--out", str(args.out)]
    command += ["--extras", args.extras, "--measure", kind, what]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(args.out, ignore_errors=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind:<6} {what:<36} {row['seconds']:7.1f} s {row['peak_rss_gb']:6.2f} GB peak", row["steps"], flush=True)
    return row


def _groups(checkpoint: Path, text: str) -> list[str]:
    """Groups of graphs; "all" leaves out what the checkpoint's family has not."""
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.extras import EXTRAS

    if text != "all":
        return [name for name in text.split(",") if name]
    sound = Checkpoint.open(checkpoint).config.sound_gen
    return [name for name in EXTRAS if name != "sound" or sound]


def _extra_names(groups: list[str]) -> list[str]:
    from motedge.export.extras import extra_graphs

    return [spec.name for spec in extra_graphs(groups)]


def _measure(checkpoint: Path, out: Path, kind: str, what: str, groups: list[str]) -> int:
    start = time.perf_counter()
    if kind == "ours":
        steps = _export(checkpoint, out, SETS[what], groups)
    elif kind == "graph":
        steps = _export_graph(checkpoint, out, *what.split())
    else:
        steps = _export_naively(checkpoint, out, what)
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    row = {
        "kind": kind,
        "what": what,
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_gb": usage.ru_maxrss * 1024 / 1e9,
        "written_gb": size / 1e9,
        "steps": {name: round(value, 2) for name, value in steps.items()},
    }
    print(json.dumps(row))
    return 0


def _export(checkpoint: Path, out: Path, variants: str, groups: list[str]) -> dict[str, float]:
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.job import ExportOptions, export_bundle
    from motedge.export.shapes import SHAPE_SETS
    from motedge.export.variants import parse_variants

    options = ExportOptions(SHAPE_SETS["droid"], parse_variants(variants), samples="none", extras=groups)
    return export_bundle(Checkpoint.open(checkpoint), out, options).seconds


def _export_graph(checkpoint: Path, out: Path, graph: str, variant: str) -> dict[str, float]:
    """One graph with every weight that it reads, those of another graph's file included."""
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.extras import find_graph
    from motedge.export.onnx_file import attach_weights, check_model, write_model
    from motedge.export.shapes import SHAPE_SETS
    from motedge.export.variants import VARIANTS
    from motedge.export.weights import DTYPES, place_weights, plan_weights, write_weights

    opened, shapes = Checkpoint.open(checkpoint), SHAPE_SETS["droid"]
    wanted, spec = VARIANTS[variant], find_graph(graph)
    start = time.perf_counter()
    module = spec.empty_module(opened, shapes, wanted, spec.relu2_ranges(opened, wanted))
    model = spec.assemble(module, spec.contract_of(opened, shapes), wanted)
    traced = time.perf_counter()
    slots = place_weights(graph, DTYPES[wanted.dtype], plan_weights(module))
    for file in sorted({slot.file for slot in slots}):
        target = out / "weights" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        write_weights(target, [slot for slot in slots if slot.file == file], spec.store(opened))
    attach_weights(model, slots)
    write_model(model, out / f"{graph}.onnx", {})
    check_model(out / f"{graph}.onnx")
    return {"graph": traced - start, "weights": time.perf_counter() - traced}


def _export_naively(checkpoint: Path, out: Path, graph: str) -> dict[str, float]:
    import torch

    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.graphs import GRAPHS as SPECS
    from motedge.export.shapes import SHAPE_SETS
    from motedge.export.trace import TraceSettings, example_inputs
    from motedge.export.variants import VARIANTS

    opened, shapes, variant = Checkpoint.open(checkpoint), SHAPE_SETS["droid"], VARIANTS[NAIVE_VARIANT]
    spec = SPECS[graph]
    start = time.perf_counter()
    module = spec.module(opened, shapes, variant)
    loaded = time.perf_counter()
    contract = spec.contract(opened.config, shapes)
    settings = TraceSettings(variant.dtype, variant.opset, contract.sizes, contract.profile)
    arguments, dynamic = example_inputs(contract.inputs, settings)
    exported = torch.export.export(
        module,
        (),
        kwargs=arguments,
        dynamic_shapes=dynamic,
        strict=False,
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    program = torch.onnx.export(exported, dynamo=True, opset_version=variant.opset)
    traced = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    program.save(out / f"{graph}.onnx", external_data=True)
    return {"load": loaded - start, "export": traced - loaded, "save": time.perf_counter() - traced}


if __name__ == "__main__":
    sys.exit(main())
