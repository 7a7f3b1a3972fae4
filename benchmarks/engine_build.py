"""Full-size engine builds on this machine: time, peak memory and engine size, ours against one naive call and the plan.

Every build is a process of its own, so that its peak memory is its own. The naive way is what TensorRT's manual shows:
parse the ONNX file, call build_serialized_network, write the bytes. With --cpu-bundle, a CPU engine is measured against
the graph that it was made of, in turn.

    python benchmarks/engine_build.py --bundle edge-full edge-full-fp8 --work /somewhere/with/10-GB --target rtx-5090
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from conditions import collect_conditions

from motedge.bundle import Bundle
from motedge.targets.builders.builder import Builder, BuildRequest
from motedge.targets.builders.child import build_in_child
from motedge.targets.builders.expected import expect_build
from motedge.targets.builders.memory_watch import MemoryPeak
from motedge.targets.builders.registry import builder_for
from motedge.targets.builders.selection import Choice, asked_types, choose
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.catalog import Target, load_target

_PERIOD_S = 0.05


def main() -> int:
    """Runs every build, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bundle", type=Path, nargs="*", default=[], help="full-size bundles; they are left as they are"
    )
    parser.add_argument("--graphs", nargs="*", default=["gen_step"])
    parser.add_argument("--recipes", nargs="*", default=[], help="of quantized bundles (default: all that they have)")
    parser.add_argument("--target", default="rtx-5090", help="a target of TensorRT-RTX")
    parser.add_argument("--work", type=Path, help="a folder for engines, each removed after its measurement")
    parser.add_argument("--only", nargs="*", choices=["ours", "naive"], default=["ours", "naive"])
    parser.add_argument("--cpu-bundle", type=Path, help="a bundle in fp32 for the comparison on a CPU")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--naive", nargs=4, metavar=("MODEL", "CONTRACT", "SM", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.naive:
        return build_naively(*args.naive)
    conditions = collect_conditions()
    target = load_target(args.target)
    rows = []
    for root in args.bundle:
        bundle = Bundle.open(root)
        for choice in _choices(bundle, target, args.graphs, args.recipes):
            for way in args.only:
                rows.append(_measure(bundle, target, choice, way, args.work))
                _print(rows[-1])
    result: dict[str, Any] = {
        "schema": "motedge.benchmark/v1",
        "benchmark": "engine_build",
        "conditions": {**conditions, "builder": f"tensorrt-rtx {_version(target)}" if rows else None},
        "note": "peak_rss_gb is ru_maxrss and counts mapped pages of the weight file, which the system can take back; "
        "peak_anonymous_gb (sampled every 50 ms) does not",
        "rows": rows,
    }
    if args.cpu_bundle is not None:
        result["cpu"] = compare_on_cpu(args.cpu_bundle, args.work, args.rounds)
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "engine_build.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _choices(bundle: Bundle, target: Target, graphs: list[str], wanted: list[str]) -> list[Choice]:
    """The best variant of each graph, in each recipe that the bundle has."""
    dialects, found = builder_for(target).dialects(), []
    for graph in graphs:
        recipes = {v.recipe for v in bundle.graph(graph).variants.values() if not wanted or v.recipe in wanted}
        for recipe in sorted(recipes, key=str):
            found += choose(
                bundle,
                dialects=dialects,
                compute_capability=target.compute_capability,
                graphs=[graph],
                recipe=recipe,
            )
    return found


def _version(target: Target) -> str:
    return builder_for(target).version()


def _measure(bundle: Bundle, target: Target, choice: Choice, way: str, work: Path) -> dict[str, Any]:
    builder, weights = builder_for(target), [bundle.manifest.files[name].bytes for name in choice.entry.weights]
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.sync()  # the previous measurement's pages must not be written back during this one
    request = BuildRequest(
        graph=choice.graph,
        variant=choice.variant,
        model=bundle.path(choice.entry.file),
        contract=bundle.contract(choice.graph),
        dtype=choice.entry.dtype,
        asked=asked_types(bundle, choice),
        capabilities=builder.check(target, BuildSettings()),
        settings=BuildSettings(),
        out=work / "engine",
        target=target.id,
    )
    facts: dict[str, Any] = {}
    if way == "ours":
        built, peak, seconds = build_in_child(builder.name, request, lambda phase, share: None)
        facts = {"layers": built.layers, "raised_precision": list(built.raised_precision), "notes": list(built.notes)}
    else:
        peak, seconds = _run_naively(request)
    size = request.out.stat().st_size
    shutil.rmtree(work)
    return {
        "way": way,
        "target": target.id,
        "graph": choice.graph,
        "variant": choice.variant,
        "seconds": round(seconds, 1),
        "weights_gb": sum(weights) / 1e9,
        "engine_gb": size / 1e9,
        "peak_rss_gb": peak.resident / 1e9,
        "peak_anonymous_gb": None if peak.anonymous is None else peak.anonymous / 1e9,
        "peak_over_weights": round(peak.resident / sum(weights), 3),
        **(_expected(bundle, choice, builder, size, peak) if way == "ours" else {}),
        **facts,
    }


def _expected(bundle: Bundle, choice: Choice, builder: Builder, size: int, peak: MemoryPeak) -> dict[str, Any]:
    """What the builder's model said beforehand, and by how much it was wrong."""
    expected = expect_build(bundle, choice, builder.name, builder.version())
    return {
        "expected_engine_gb": expected.engine_bytes / 1e9,
        "expected_peak_gb": expected.peak_bytes / 1e9,
        "engine_error": round(expected.engine_bytes / size - 1, 4),
        "peak_error": round(expected.peak_bytes / peak.resident - 1, 4),
    }


def _run_naively(request: BuildRequest) -> tuple[MemoryPeak, float]:
    contract, peak, start = request.out.with_name("contract.json"), MemoryPeak(), time.perf_counter()
    contract.write_text(json.dumps(request.contract.to_dict()), encoding="utf-8")
    arguments = [str(request.model), str(contract), request.capabilities[0], str(request.out)]
    child = subprocess.Popen([sys.executable, __file__, "--naive", *arguments], stdout=sys.stderr)
    while child.poll() is None:
        peak.watch(child.pid)
        time.sleep(_PERIOD_S)
    if child.returncode != 0:
        raise SystemExit(f"the naive build ended with exit code {child.returncode}")
    return peak, time.perf_counter() - start


def build_naively(model: str, contract_file: str, capability: str, out: str) -> int:
    """What the manual shows, with one profile."""
    import tensorrt_rtx as trt

    from motedge.bundle import Contract

    contract = Contract.from_dict(json.loads(Path(contract_file).read_text(encoding="utf-8")))
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(model):
        return 1
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}"), 0)
    profile = builder.create_optimization_profile()
    sizes = [{**contract.sizes, **{d: r[i] for d, r in contract.profile.items()}} for i in range(3)]
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if -1 in tuple(tensor.shape):
            profile.set_shape(tensor.name, *(contract.tensor(tensor.name).shape(s) for s in sizes))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return 1
    Path(out).write_bytes(plan)
    return 0


def compare_on_cpu(root: Path, work: Path, rounds: int) -> dict[str, Any]:
    """One forward of the generator: the CPU engine against the graph that it was made of, in turn, same inputs."""
    import numpy as np
    from interleave import Way, measure

    from motedge.runtime.backends.onnxruntime import OnnxRuntimeEngine
    from motedge.runtime.engine import EngineOptions

    bundle, graph, variant = Bundle.open(root), "gen_step", "primitive-fp32"
    contract, entry = bundle.contract(graph), bundle.variant(graph, variant)
    work.mkdir(parents=True, exist_ok=True)
    plain, engine = bundle.path(entry.file), work / "engine.onnx"
    request = BuildRequest(graph, variant, plain, contract, "fp32", {}, (), BuildSettings(), engine)
    built, _, _ = build_in_child("onnxruntime", request, lambda phase, share: None)
    sizes, random, ways, outputs = contract.optimum(), np.random.RandomState(0), {}, {}
    inputs = {s.name: random.uniform(-1, 1, s.shape(sizes)).astype(np.float32) for s in contract.inputs}
    for name, file in (("graph", plain), ("engine", engine)):
        context = OnnxRuntimeEngine(file, contract, "fp32", EngineOptions(threads=2)).context(
            {letter: sizes[letter] for letter in contract.profile}
        )
        for key, value in inputs.items():
            context.set_input(key, value)
        ways[name] = Way(context.run)
        context.run()
        outputs[name] = {s.name: context.output(s.name).copy() for s in contract.outputs}
    measured = measure(ways, rounds, warmup=list(ways))
    shutil.rmtree(work)
    difference = {
        name: float(np.abs(outputs["engine"][name] - value).max() / np.abs(value).max())
        for name, value in outputs["graph"].items()
    }
    rows = {name: entry.to_dict() for name, entry in measured.items()}
    print(f"CPU: {rows['graph']['cpu_ms']} ms -> {rows['engine']['cpu_ms']} ms of CPU time a forward")
    return {
        "model": {key: bundle.manifest.model.get(key) for key in ("family", "variant")},
        "sizes": sizes,
        "fused_attention": built.layers["fused_attention"],
        "forward": rows,
        "largest_relative_difference": difference,
    }


def _print(row: dict[str, Any]) -> None:
    print(
        f"{row['way']:<6} {row['graph']:<12} {row['variant']:<20} {row['seconds']:6.1f} s  engine "
        f"{row['engine_gb']:.3f} GB  peak {row['peak_rss_gb']:.2f} GB = {row['peak_over_weights']:.2f} x weights"
        + (f", expected {row['expected_peak_gb']:.2f} GB" if "expected_peak_gb" in row else ""),
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
