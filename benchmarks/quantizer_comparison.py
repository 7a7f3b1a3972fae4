"""Our emission against ModelOpt's own ONNX quantizer, on the same graph, data and schemes, in one run.

Both calibrate on the same recorded forwards of the real loop and are measured on forwards of held-out observations.
Compared: error of the velocities, size of the file with its weights, and whether TensorRT-RTX builds an engine from it.

    python benchmarks/quantizer_comparison.py --data DATASET --instruction TEXT --work out/quantizers
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tensorrt_rtx as trt
from conditions import collect_conditions, load_average

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.shapes import ShapeSet
from motedge.export.variants import parse_variants
from motedge.quant.calibration.job import CalibrationOptions, calibrate, needs_of
from motedge.quant.datasets.dataset import Moment
from motedge.quant.datasets.open import open_dataset
from motedge.quant.emission.variant import plan_emission, write_quantized
from motedge.quant.fidelity.figures import ErrorSum
from motedge.quant.plan import make_plan
from motedge.quant.recipe import load_recipe
from motedge.quant.replay import Forward, RequestReader, TappedEngine, encode_prompts, open_loop, run_requests
from motedge.quant.source import BundleWeights
from motedge.quant.towers import open_tower

GEN, UND = "gen_step", "und_prefill"
# A small picture with the frames and rows of the DROID policy
SHAPES = ShapeSet("mini-policy", (96, 112), (84, 107), 33, 33, 15.0, max_latent_frames=9, max_actions=65)
BASES = ("primitive-fp32", "fused-fp16")
# Our recipe -> ModelOpt's mode and calibration method. SmoothQuant is not among its ONNX methods; awq_clip is its
# default for INT4 (awq_lite, which is what the recipe uses in torch, takes minutes a graph there and fails in fp32)
SCHEMES = {"fp8": ("fp8", "max"), "int8-sq": ("int8", "max"), "int4-awq": ("int4", "awq_clip")}
CAPABILITIES = {"fp8": "SM89", "int8-sq": "SM86", "int4-awq": "SM86"}


def main() -> int:
    """Runs both quantizers on every base and scheme, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set to calibrate on")
    parser.add_argument("--instruction", default="put the cup down", help="where the data set has no task text")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--family", default="edge")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    conditions = collect_conditions()
    bundle = prepare(args.work, args.family)
    plan = make_plan(bundle, load_recipe("int4-awq"))
    dataset = open_dataset(args.data, instruction=args.instruction)
    options = CalibrationOptions(observations=2, held_out=2, awq_forwards=8)
    calibration = calibrate(bundle, dataset, needs_of(plan.schemes), args.work / "calibration", options)
    seen = [Moment(*pair) for pair in calibration.data.calibration]
    apart = [Moment(*pair) for pair in calibration.data.held_out]
    forwards = [record(bundle, dataset, moments) for moments in (seen, apart)]
    rows = []
    for base in BASES:
        for recipe in SCHEMES:
            for name, make in (("motedge", ours), ("ModelOpt ONNX", theirs)):
                rows.append(measure(args.work, bundle, base, recipe, name, make, calibration, forwards))
    result = {
        "schema": "motedge.benchmark/v1",
        "benchmark": "quantizer_comparison",
        "conditions": conditions,
        "load_average_after": load_average(),
        "model": f"{args.family} small, random weights, shape set {SHAPES.name}",
        "note": "errors are of the generator's velocities against fp32, on forwards of held-out observations; ModelOpt "
        "was restricted to the same projections; its INT8 has no SmoothQuant in ONNX",
        "rows": rows,
    }
    args.results.mkdir(parents=True, exist_ok=True)
    target = args.results / "quantizer_comparison.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{target}")
    return 0


def prepare(work: Path, family: str) -> Bundle:
    """A small model's bundle with the variants that are quantized."""
    if not (work / "checkpoint").exists():
        make_checkpoint(work / "checkpoint", family, "policy-droid", "small", seed=0)
    export_bundle(
        Checkpoint.open(work / "checkpoint"),
        work / "bundle",
        ExportOptions(SHAPES, parse_variants(",".join(BASES)), "none"),
    )
    return Bundle.open(work / "bundle")


def record(bundle: Bundle, dataset: Any, moments: list[Moment]) -> list[Forward]:
    """The generator's forwards in fp32 for some observations, all steps and branches."""
    und, gen, vae = (open_tower(bundle, graph) for graph in (UND, GEN, "vae_encoder"))
    reader = RequestReader(bundle, vae)
    requests = [reader.read(dataset.observation(moment), seed) for seed, moment in enumerate(moments)]
    prompts = encode_prompts(bundle, und, requests, reader.settings)
    heard: list[Forward] = []
    tap = TappedEngine(gen, heard.append)
    loop = open_loop(bundle, tap, prompts)
    run_requests(loop, requests, reader.settings, tap)
    loop.close()
    return heard


def ours(work: Path, bundle: Bundle, base: str, recipe: str, calibration: Any, _: list[Forward]) -> Path:
    """Our emission; returns the ONNX file."""
    sites = [site.name for site in BundleWeights.open(bundle, GEN).sites()]
    known = calibration.parameters(GEN, load_recipe(recipe).resolve(GEN, sites))
    emission = plan_emission(bundle, GEN, base, recipe, known)
    out = work / "ours"
    write_quantized(bundle, emission, out)
    return out / emission.file


def theirs(work: Path, bundle: Bundle, base: str, recipe: str, _: Any, seen: list[Forward]) -> Path:
    """ModelOpt's quantizer on a copy of the graph (it rewrites its input); returns the ONNX file."""
    from modelopt.onnx.quantization import quantize
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    copy = work / "theirs" / base
    shutil.copytree(bundle.root / "graphs", copy, dirs_exist_ok=True)
    model = copy / Path(bundle.variant(GEN, base).file).name
    nodes = onnx.load(str(model), load_external_data=False).graph.node
    names = [node.name for node in nodes if node.op_type == "MatMul"]
    sites = {f"{site.name}/MatMul" for site in BundleWeights.open(bundle, GEN).sites()}
    mode, method = SCHEMES[recipe]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, Any] | None:
            return next(self._items, None)

        def get_first(self) -> dict[str, Any]:
            return feeds(seen[0], base)

        def rewind(self) -> None:
            self._items: Iterator[dict[str, Any]] = iter([feeds(forward, base) for forward in seen])

    target = copy / f"{recipe}.onnx"
    quantize(
        str(model),
        quantize_mode=mode,
        calibration_data_reader=Reader(),
        calibration_method=method,
        calibration_eps=["cpu"],
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=[name for name in names if name not in sites],
        high_precision_dtype=base.rpartition("-")[2],
        output_path=str(target),
        log_level="ERROR",
    )
    return target


def measure(
    work: Path,
    bundle: Bundle,
    base: str,
    recipe: str,
    name: str,
    make: Any,
    calibration: Any,
    forwards: list[list[Forward]],
) -> dict[str, Any]:
    """Quantizes one way; error, size and engine."""
    start = time.perf_counter()
    row: dict[str, Any] = {"quantizer": name, "base": base, "scheme": recipe}
    try:
        model = make(work, bundle, base, recipe, calibration, forwards[0])
        row["seconds"] = round(time.perf_counter() - start, 1)
        row["bytes"] = size_of(model)
        source = bundle.variant(GEN, base)
        row["size_ratio"] = round(row["bytes"] / sum((bundle.root / file).stat().st_size for file in source.weights), 3)
    except Exception as error:  # noqa: BLE001, whatever the other tool raises is its result
        row["failed"] = f"{type(error).__name__}: {str(error)[:200]}"
        print(f"{name:<14} {base:<15} {recipe:<9} {row['failed']}", flush=True)
        return row
    try:
        row.update(errors(model, base, forwards[1]))
    except Exception as error:  # noqa: BLE001
        row["onnxruntime"] = f"{type(error).__name__}: {str(error)[:200]}"
    row["engine"] = build(model, bundle, CAPABILITIES[recipe])
    told = {key: value for key, value in row.items() if key not in ("quantizer", "base", "scheme")}
    print(f"{name:<14} {base:<15} {recipe:<9} {json.dumps(told)}", flush=True)
    return row


def feeds(forward: Forward, base: str) -> dict[str, Any]:
    """A recorded forward's inputs in the graph's types."""
    half = base.endswith("fp16")
    return {n: v.astype(np.float16) if half and n == "und_kv" else np.asarray(v) for n, v in forward.inputs.items()}


def errors(model: Path, base: str, apart: list[Forward]) -> dict[str, Any]:
    """Velocities in onnxruntime against fp32, over held-out forwards."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    sums = {name: ErrorSum() for name in names}
    for forward in apart:
        for name, value in zip(names, session.run(names, feeds(forward, base)), strict=True):
            sums[name].add(value, forward.outputs[name])
    found = {name: total.figures() for name, total in sums.items()}
    return {name: {"relative_l2": figures.relative_l2, "cosine": figures.cosine} for name, figures in found.items()}


def build(model: Path, bundle: Bundle, capability: str) -> str:
    """ "builds", or what TensorRT-RTX says."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        return "parser: " + "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))[:300]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    contract, profile = bundle.contract(GEN), builder.create_optimization_profile()
    sizes = [{**contract.sizes, **{d: r[i] for d, r in contract.profile.items()}} for i in range(3)]
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if -1 in tuple(tensor.shape):
            profile.set_shape(tensor.name, *(contract.tensor(tensor.name).shape(s) for s in sizes))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    return "refused" if engine is None else f"builds for {capability}, {len(memoryview(engine)) / 1e6:.1f} MB"


def size_of(model: Path) -> int:
    """The ONNX file and all data that it refers to."""
    proto = onnx.load(str(model), load_external_data=False)
    places = {
        entry.value for tensor in proto.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    return model.stat().st_size + sum((model.parent / place).stat().st_size for place in places)


if __name__ == "__main__":
    sys.exit(main())
