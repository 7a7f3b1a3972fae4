"""What the step cache saves and what it costs: time, forwards, and how far the result is from that without it.

With random weights, which `motedge checkpoint make` writes: the times are those of real weights of this size. The
errors show that the paths work; a trained network's are other numbers.

    python benchmarks/step_cache.py --work out/step_cache --rounds 3
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conditions import SCHEMA, collect_conditions, load_average, usable_threads
from interleave import Way, measure

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import GateError, MotedgeError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.shapes import load_shape_set
from motedge.export.variants import REFERENCE
from motedge.files import write_json
from motedge.runtime.backends import open_engine
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.engine import EngineOptions
from motedge.runtime.request import GenInputs, GenResult, SamplerSettings
from motedge.runtime.step_cache.options import parse_step_cache
from motedge.runtime.tables import Tables

NOTE = (
    "weights are random: the times are those of real weights of this size, the errors prove the paths only and say "
    "nothing of a trained model"
)
# Ways of sampling: the DROID policy server's with guidance at every step, and the action modes' (spec 5.4)
PLANS = {
    "policy": SamplerSettings(steps=4, shift=5.0, guidance=3.0),
    "actions": SamplerSettings(steps=30, shift=10.0, guidance=1.0),
}
# "none" is what the others are held against
RULES: Mapping[str, tuple[str, ...]] = {
    "policy": ("none", "every:1", "every:2", "uncond:1,2,3", "sea:0", "sea"),
    "actions": ("none", "every:1", "every:2", "every:3", "sea:0", "sea:0.1", "sea"),
}
# Rules that leave nothing out: their results must be the same bits
IDLE = ("every:1", "sea:0")
PROMPT, NEGATIVE = 158, 12


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints a table, writes the JSON; 1 when a rule that leaves nothing out changed a bit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keeps checkpoint and bundle here and uses them again (else: none)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON")
    parser.add_argument("--family", default="edge", help="edge, nano or super (default edge)")
    parser.add_argument("--size", default="tiny", help="tiny, small or full (default tiny)")
    parser.add_argument("--shape-set", default="droid", help="as for motedge export (default droid)")
    parser.add_argument("--plans", default=",".join(PLANS), help="ways of sampling (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times that every rule is run (default 3)")
    parser.add_argument("--threads", type=int, help="threads (default: one a core)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the noise (default 0)")
    args = parser.parse_args(arguments)
    plans = args.plans.split(",")
    if args.rounds < 1 or not set(plans) <= set(PLANS):
        parser.error(f"--rounds must be at least 1, --plans of {', '.join(PLANS)}")
    try:
        if args.work is not None:
            result = run(args, plans, args.work)
        else:
            with tempfile.TemporaryDirectory() as folder:
                result = run(args, plans, Path(folder))
        args.results.mkdir(parents=True, exist_ok=True)
        target = args.results / "step_cache.json"
        write_json(target, result)
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print_table(result["rows"])
    print(f"{NOTE}\nwritten to {target}")
    return 0


def run(args: argparse.Namespace, plans: list[str], work: Path) -> dict[str, Any]:
    """Everything from checkpoint to figures.

    Raises:
        GateError: a rule that leaves nothing out changed the result.
    """
    threads = usable_threads(args.threads)
    bundle = make_bundle(work, args.family, args.size, args.shape_set, args.seed)
    options = EngineOptions(threads=threads, check_content=False)
    graphs = ("und_prefill", "gen_step")
    und, gen = (open_engine(bundle, name, variant=REFERENCE.id, options=options) for name in graphs)
    loop = DenoiseLoop(und, gen, Tables.open(bundle), bundle.manifest.model["config"])
    inputs = make_inputs(bundle, args.seed)
    conditions = collect_conditions(threads)
    try:
        rows = [row for plan in plans for row in measure_plan(loop, inputs, plan, args.rounds)]
    finally:
        loop.close()
        und.close()
        gen.close()
    channels, frames, *grid = inputs.vision_clean.shape
    return {
        "schema": SCHEMA,
        "benchmark": "step_cache",
        "conditions": {**conditions, "load_average_end": load_average()},
        "note": NOTE,
        "request": {
            "model": {"family": args.family, "size": args.size, "weights": "random", "seed": args.seed},
            "graphs": REFERENCE.id,
            "shape_set": args.shape_set,
            "latent": [channels, frames, *grid],
            "action_rows": len(inputs.action_clean),
            "prompt_tokens": {"conditional": PROMPT, "unconditional": NEGATIVE},
            "rounds": args.rounds,
        },
        "rows": rows,
    }


def make_bundle(work: Path, family: str, size: str, shape_set: str, seed: int) -> Bundle:
    """Makes checkpoint and bundle in `work`, or takes those that are there."""
    checkpoint = work / "checkpoint"
    if not checkpoint.exists():
        make_checkpoint(checkpoint, family, "policy-droid", size, seed)
    options = ExportOptions(load_shape_set(shape_set), [REFERENCE], samples="none")
    export_bundle(Checkpoint.open(checkpoint), work / "bundle", options)
    return Bundle.open(work / "bundle")


def make_inputs(bundle: Bundle, seed: int) -> GenInputs:
    """A policy's request with a drawn latent in place of an encoded image: frame 0 and row 0 are given."""
    contract, shapes = bundle.contract("gen_step"), bundle.manifest.shape_set
    sizes, random = contract.sizes, np.random.RandomState(seed)
    frames, rows = 1 + (int(shapes["frames"]) - 1) // 4, int(shapes["actions"])
    vision = random.standard_normal((sizes["C"], frames, sizes["h"], sizes["w"])).astype(np.float32)
    action = np.zeros((rows, sizes["Z"]), np.float32)
    action[0, :8] = np.linspace(-1, 1, 8)
    noisy = np.ones(frames, np.float32), np.ones(rows, np.float32)
    noisy[0][0] = noisy[1][0] = 0
    prompts = (np.arange(count, dtype=np.int64) + 30 for count in (PROMPT, NEGATIVE))
    return GenInputs(vision, noisy[0], action, noisy[1], *prompts, 15.0, 8, 8, seed)


def measure_plan(loop: DenoiseLoop, inputs: GenInputs, plan: str, rounds: int) -> list[dict[str, Any]]:
    """A row a rule, "none" first."""
    settings = {
        rule: PLANS[plan] if rule == "none" else replace(PLANS[plan], step_cache=parse_step_cache(rule))
        for rule in RULES[plan]
    }
    ways = {rule: Way(lambda own=own: loop.run(inputs, own)) for rule, own in settings.items()}  # type: ignore[misc]
    measured = measure(ways, rounds, warmup=("none",), report=_progress)
    plain = measured["none"]
    rows = []
    for rule, entry in measured.items():
        errors = compare(entry.result, plain.result, inputs)
        if rule in IDLE and any(errors.values()):
            raise GateError(f"{rule} leaves nothing out and changed the result", expected="the same bits", got=errors)
        counters = entry.result.counters
        rows.append(
            {
                "plan": plan,
                "rule": rule,
                "forwards": counters.forwards,
                "reused": counters.reused,
                **entry.to_dict(),
                # CPU time, which other programs on the machine disturb less than wall time
                "cpu_ratio": round(entry.to_dict()["cpu_ms"] / plain.to_dict()["cpu_ms"], 4),
                **errors,
            }
        )
    return rows


def compare(result: GenResult, plain: GenResult, inputs: GenInputs) -> dict[str, float]:
    """Relative L2 error of the generated frames and rows, and the largest difference of a generated action."""
    frames, rows = inputs.vision_noisy == 1, inputs.action_noisy == 1
    vision, action = (
        (got[part].astype(np.float64), kept[part].astype(np.float64))
        for got, kept, part in (
            (result.vision, plain.vision, np.s_[:, frames]),
            (result.action, plain.action, np.s_[rows, : inputs.raw_dim]),
        )
    )
    return {
        "vision_relative_l2": float(np.linalg.norm(vision[0] - vision[1]) / np.linalg.norm(vision[1])),
        "action_relative_l2": float(np.linalg.norm(action[0] - action[1]) / np.linalg.norm(action[1])),
        "action_max_difference": float(np.abs(action[0] - action[1]).max()),
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """The rows, a line each."""
    print(f"{'plan':<10}{'rule':<14}{'forwards':>9}{'CPU ms':>10}{'ratio':>8}{'vision':>11}{'action':>11}")
    for row in rows:
        print(
            f"{row['plan']:<10}{row['rule']:<14}{row['forwards']:>9}{row['cpu_ms']:>10.1f}{row['cpu_ratio']:>8.2f}"
            f"{row['vision_relative_l2']:>11.2e}{row['action_relative_l2']:>11.2e}"
        )


def _progress(name: str, wall_ms: float) -> None:
    print(f"  {name:<14}{wall_ms:>10.1f} ms", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
