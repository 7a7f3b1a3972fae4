"""Accuracy against latency of the committed small checkpoint: `motedge bench` over its recipes and operating points.

    python benchmarks/road_bench.py --work out/road_bench --out benchmarks/results/road_bench.json

With examples/small_road, which drives, on pictures of roads that it has not seen (examples/train_small). Exports and
quantizes into --work what is not there; another run goes on from there. --make-only ends with that, for a machine that
has a GPU and no simulator: `gpu_reports.py` takes the folders there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Optional

# gymnasium draws on a screen unless told otherwise; one thread, so that a tick's time is a core's
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from conditions import SCHEMA, collect_conditions, load_average, machine_cpu_s  # noqa: E402

from examples.train_small.draw_road import observe  # noqa: E402
from examples.train_small.road.instructions import CANONICAL  # noqa: E402
from motedge.bench.report import load_bench  # noqa: E402
from motedge.cli.main import main as motedge  # noqa: E402
from motedge.errors import MotedgeError, UsageError  # noqa: E402
from motedge.files import require_writable, write_json  # noqa: E402
from motedge.runtime.policy.observation_folder import write_observation  # noqa: E402

# Roads from here on were never trained on
FIRST_SEED, ROADS = 200_000, 4
RECIPES = ("w8a16", "int8-sq", "int4-awq", "nvfp4-w4a16")
# Others, for the calibration of recipes and its report: the bench acts on none of them
CALIBRATION_SEED, CALIBRATION_ROADS = 300_000, 4
_CALIBRATION, _HELD_OUT = 8, 4
GRID = ("--steps", "1,2,4,8", "--guidance", "1,3", "--step-cache", "none", "--step-cache", "every:2")
# What stays in bench.json and journal.jsonl
_LEFT_OUT = ("ms", "scenes", "error", "launch", "sessions", "predicted", "energy")


def main(arguments: Optional[list[str]] = None) -> int:
    """Makes what is missing, measures, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="bundles, observations and the bench")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "road_bench.json")
    parser.add_argument("--repeat", type=int, default=60, help="ticks of each cell (default: %(default)s)")
    parser.add_argument("--make-only", action="store_true", help="bundles and observations, and no bench")
    args = parser.parse_args(arguments)
    try:
        if args.make_only:
            made(args.work)
            return 0
        require_writable(args.out)
        conditions = collect_conditions(threads=1)
        plain, quantized, scenes = made(args.work)
        bench = [str(plain), str(quantized), "--observations", str(scenes), "--most-observations", "16", *GRID]
        # A turn every second tick: other programs on the machine then fall on all cells
        ticks = ["--repeat", str(args.repeat), "--rounds", str(max(1, args.repeat // 2))]
        command = ["bench", *bench, "--threads", "1", *ticks, "--out", str(args.work / "bench")]
        before_s, own_s = machine_cpu_s(), sum(os.times()[:4])
        _motedge(*command)
        spent_s, own_s = machine_cpu_s(), sum(os.times()[:4]) - own_s
        others_s = None if before_s is None or spent_s is None else round(spent_s - before_s - own_s, 1)
        document = load_bench(args.work / "bench")
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    result = {
        "schema": SCHEMA,
        "name": "road_bench",
        "conditions": {
            **conditions,
            "load_average_after": load_average(),
            "own_cpu_s": round(own_s, 1),
            "others_cpu_s": others_s,
        },
        "checkpoint": "examples/small_road",
        "recipes": list(RECIPES),
        "observations": document["observations"]["names"],
        "options": document["options"],
        "complete": document["complete"],
        "candidates": document["candidates"],
        "cells": [_figures(cell) for cell in document["cells"]],
    }
    write_json(args.out, result)
    print(f"written {args.out}")
    return 0


def made(work: Path) -> tuple[Path, Path, Path]:
    """The bundle, its quantized one and the folder of observations, made where they are not there."""
    plain, quantized, scenes = work / "small_road", work / "quantized", work / "scenes"
    calibration, shapes = work / "calibration", _ROOT / "examples/train_small/shapes.toml"
    _motedge("export", str(_ROOT / "examples/small_road"), "--out", str(plain), "--shape-set", str(shapes))
    _draw(scenes, FIRST_SEED, ROADS)
    _draw(calibration, CALIBRATION_SEED, CALIBRATION_ROADS)
    data = ["--calibration", str(calibration), "--observations", str(_CALIBRATION), "--held-out", str(_HELD_OUT)]
    for recipe in RECIPES:
        # A recipe that misses the gate of motedge quantize is what this is to show
        _motedge("quantize", str(plain), "--recipe", recipe, "--out", str(quantized), *data, passes=(0, 1))
    return plain, quantized, scenes


def _draw(folder: Path, first_seed: int, roads: int) -> None:
    """A picture of each road, each behaviour told on it; what is there already stays."""
    for seed in range(first_seed, first_seed + roads):
        for behaviour, words in CANONICAL.items():
            scene = folder / f"{behaviour}-{seed}"
            if not scene.is_dir():
                write_observation(scene, observe(seed, words))


def _motedge(*arguments: str, passes: tuple[int, ...] = (0,)) -> None:
    code = motedge(list(arguments))
    if code not in passes:
        raise UsageError(f"motedge {arguments[0]} ended with exit code {code}", fix="see what it said above")


def _figures(cell: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in cell.items() if name not in _LEFT_OUT}
    kept["latency_ms"] = {name: round(value, 3) for name, value in (cell["latency_ms"] or {}).items() if value}
    kept["forwards"] = sorted(set(cell["forwards"] or ()))
    kept["reused"] = sorted(set(cell["reused"] or ()))
    for name in ("from_shipped", "from_same_point"):
        error = cell[name]
        if error is not None:
            groups = {
                group["unit"]: {key: float(f"{group[key]:.5g}") for key in ("rms", "max")} for group in error["groups"]
            }
            kept[name] = {"relative_l2": float(f"{error['relative_l2']:.5g}"), "by_unit": groups}
    return kept


if __name__ == "__main__":
    raise SystemExit(main())
