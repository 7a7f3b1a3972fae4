"""Does a mixture that the sensitivity search finds beat the best uniform recipe of its size? On layers that differ.

For each seed a checkpoint with random weights is made, once as it is and once with outlier channels planted in half of
its layers' places: a channel is scaled up by a power of two and the weights that read it are scaled down, so that the
unquantized function stays the same, and quantizing it does not. Both are searched. At each size that a uniform recipe
has, the best uniform recipe of at most that size meets the mixture of at most that size, on observations that the
search did not see.

    python benchmarks/mixed_recipe.py --data DATA --work out/mixed_recipe --seeds 5
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from conditions import collect_conditions, load_average

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.shapes import ShapeSet, load_shape_set
from motedge.export.variants import parse_variants
from motedge.files import write_json
from motedge.quant.recipe import load_recipe
from motedge.quant.sensitivity.job import WORKLOAD, plan_search, run_search
from motedge.quant.sensitivity.observations import ObservationSource
from motedge.quant.sensitivity.options import SearchOptions, Target
from motedge.quant.sensitivity.workload import Workload

# A small picture with the frames and rows of the DROID policy
SMALL = ShapeSet("small-policy", (96, 112), (84, 107), 33, 33, 15.0, max_latent_frames=9, max_actions=65)
INSTRUCTION = "Put the red cup on the plate."
# The same noise in all searches; requests of one search differ by observation and seed
SEED = 0


@dataclass(frozen=True)
class Outliers:
    """How outliers are planted."""

    # Power of two by which a channel is scaled up
    exponent: int = 6
    # Share of a place's channels that are scaled, at least one
    channels: float = 0.02
    # Share of the places (layer, tower, kind) that are hit
    places: float = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Searches every model, prints a table and writes JSON; exit code 1 unless every mixture is better."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="a data set, as motedge quantize --calibration takes it"
    )
    parser.add_argument("--instruction", default=INSTRUCTION)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints, bundles and searches; kept")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument(
        "--recipes", default="int4-awq,nvfp4,fp8,int8-sq", help="what to choose from (default %(default)s)"
    )
    parser.add_argument("--family", default="edge")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--shape-set", default=None, help="a name or a .toml file (default: a small picture)")
    parser.add_argument("--seeds", type=int, default=5, help="models, each with and without outliers")
    parser.add_argument("--observations", type=int, default=6)
    parser.add_argument("--held-out", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args(argv)
    conditions = collect_conditions(threads=1)
    rows = []
    for seed in range(args.seeds):
        for kind in ("plain", "outliers"):
            found = _measure(args, seed, kind)
            print("\n".join(map(_line, found)), file=sys.stderr)
            rows += found
    conditions["load_average_after"] = load_average()
    result = {
        "schema": "motedge.benchmark/v1",
        "benchmark": "mixed_recipe",
        "conditions": conditions,
        "settings": {**_settings(args), "outliers": vars(Outliers())},
        "note": "random weights: that errors of layers differ is planted, so the size of the gain says nothing about "
        "trained models; that the search finds and uses a difference is what is shown",
        "summary": _summary(rows),
        "rows": rows,
    }
    args.results.mkdir(parents=True, exist_ok=True)
    write_json(args.results / f"mixed_recipe_{args.family}.json", result)
    print("\n".join(map(_line, rows)))
    print(json.dumps(result["summary"], indent=2))
    return 0 if all(row["better"] for row in rows if row["model"] == "outliers" and not row["same"]) else 1


def _settings(args: argparse.Namespace) -> dict[str, str]:
    """What was asked for; of folders the name alone, which is the same on every machine."""
    chosen = {name: value for name, value in vars(args).items() if name not in ("work", "results")}
    return {name: value.name if isinstance(value, Path) else str(value) for name, value in chosen.items()}


def plant_outliers(checkpoint: Path, seed: int, outliers: Outliers) -> list[str]:
    """Scales channels of a checkpoint in place, its function unchanged; returns the places that were hit."""
    from safetensors.torch import load_file, save_file

    file = checkpoint / "transformer/diffusion_pytorch_model.safetensors"
    tensors = {name: value.clone() for name, value in load_file(file).items()}
    generator = random.Random(seed)
    places = list(_places(tensors))
    hit = generator.sample(places, max(1, round(outliers.places * len(places))))
    for place in hit:
        channels = place.channels(tensors)
        chosen = generator.sample(range(channels), max(1, round(outliers.channels * channels)))
        for change in place.changes:
            change(tensors, chosen, outliers.exponent)
    save_file(tensors, file, metadata={"format": "pt"})
    return sorted(place.name for place in hit)


_Change = Callable[[dict[str, Any], list[int], int], None]


@dataclass(frozen=True)
class _Place:
    """Channels that can be scaled without a change of the function."""

    name: str
    source: str
    changes: tuple[_Change, ...]

    def channels(self, tensors: dict[str, Any]) -> int:
        return int(tensors[self.source].shape[0])


def _places(tensors: dict[str, Any]) -> Iterator[_Place]:
    """A norm's output read by projections, and the feed-forward's inner channels, of both towers in every layer."""
    layers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("layers.")})
    for layer in layers:
        for tower, suffix, heads in (("und", "", "to_{}"), ("gen", "_moe_gen", "add_{}_proj")):
            start = f"layers.{layer}."
            readers = [f"{start}self_attn.{heads.format(letter)}.weight" for letter in "qkv"]
            yield _norm(f"{tower} {layer} attention", f"{start}input_layernorm{suffix}.weight", readers, tensors)
            mlp = f"{start}mlp{suffix}."
            readers = [f"{mlp}{name}_proj.weight" for name in ("gate", "up")]
            norm = f"{start}post_attention_layernorm{suffix}.weight"
            if norm in tensors:
                yield _norm(f"{tower} {layer} feed-forward", norm, readers, tensors)
                yield _inner(f"{tower} {layer} feed-forward inside", mlp, gated=f"{mlp}gate_proj.weight" in tensors)


def _norm(name: str, norm: str, readers: list[str], tensors: dict[str, Any]) -> _Place:
    present = [reader for reader in readers if reader in tensors]

    def change(values: dict[str, Any], channels: list[int], exponent: int) -> None:
        values[norm][channels] *= 2.0**exponent
        for reader in present:
            values[reader][:, channels] *= 2.0**-exponent

    return _Place(name, norm, (change,))


def _inner(name: str, mlp: str, *, gated: bool) -> _Place:
    def change(values: dict[str, Any], channels: list[int], exponent: int) -> None:
        # relu squared turns a factor into its square
        own = exponent if gated else exponent // 2
        values[f"{mlp}up_proj.weight"][channels] *= 2.0**own
        values[f"{mlp}down_proj.weight"][:, channels] *= 2.0 ** -(own if gated else 2 * own)

    return _Place(name, f"{mlp}up_proj.weight", (change,))


def _measure(args: argparse.Namespace, seed: int, kind: str) -> list[dict[str, Any]]:
    """One model: its bundle, its search, a row a uniform recipe."""
    folder = args.work / f"{args.family}-{seed}-{kind}"
    hit = _bundle(args, folder, seed, kind)
    recipes = [load_recipe(name) for name in args.recipes.split(",")]
    source = ObservationSource.open(args.data, args.instruction, args.observations, args.held_out)
    # The target plays no part: every search measures a mixture of each uniform recipe's size
    options = SearchOptions(front=0, seed=SEED, target=Target(max_bits=16.0))
    plan = plan_search(Bundle.open(folder / "bundle"), recipes, source.identity(), folder / "search", options)
    report, _ = run_search(plan, lambda: source.evidence(plan), jobs=args.jobs)
    changed = _function_change(args.work, folder, f"{args.family}-{seed}-plain")
    facts = {"seed": seed, "model": kind, "outliers_in": hit, "function_change": changed}
    return [{**facts, **row} for row in _compare(report["points"])]


def _function_change(work: Path, folder: Path, plain: str) -> float:
    """Relative L2 between the unquantized chunks of a model and of the plain one, largest over held-out requests."""
    ours, theirs = (Workload.load(path / "search" / WORKLOAD).held_out for path in (folder, work / plain))
    differences = [
        float(np.linalg.norm(a.action - b.action) / np.linalg.norm(b.action)) for a, b in zip(ours, theirs, strict=True)
    ]
    return max(differences)


def _compare(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each size of a uniform recipe: the best uniform recipe of that size or less against the mixture."""
    uniform = [point for point in points if point["kind"] == "uniform"]
    rows = []
    for size in sorted({point["bytes"] for point in uniform}):
        errors = {p["name"]: p["held_out_chunk"] for p in uniform if p["bytes"] <= size}
        best = min(errors, key=lambda name: errors[name])
        mixture = max((p for p in points if p["kind"] == "equal-size" and p["bytes"] <= size), key=lambda p: p["bytes"])
        error = mixture["held_out_chunk"]
        rows.append(
            {
                "bits": next(p["bits"] for p in uniform if p["bytes"] == size),
                "bytes": size,
                "mixed_bytes": mixture["bytes"],
                "uniform_errors": errors,
                "best_uniform": best,
                "mixed_error": error,
                "mixed_schemes": mixture["schemes"],
                "ratio": errors[best] / error,
                "better": error < errors[best],
                # At the least size there is nothing to choose
                "same": mixture["schemes"] in [p["schemes"] for p in uniform if p["bytes"] <= size],
            }
        )
    return rows


def _bundle(args: argparse.Namespace, folder: Path, seed: int, kind: str) -> list[str]:
    """Makes checkpoint and bundle unless they are there; the places with outliers."""
    note = folder / "outliers.json"
    if not note.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint = make_checkpoint(folder / "checkpoint", args.family, "policy-droid", args.size, seed=seed)
        hit = plant_outliers(checkpoint, seed, Outliers()) if kind == "outliers" else []
        shapes = load_shape_set(args.shape_set) if args.shape_set else SMALL
        options = ExportOptions(shapes, parse_variants("primitive-fp32"), "none")
        export_bundle(Checkpoint.open(checkpoint), folder / "bundle", options)
        write_json(note, hit)
    found: list[str] = json.loads(note.read_text())
    return found


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By model and size: in how many seeds the mixture was better, and by what factor."""
    summary = {}
    for model in ("plain", "outliers"):
        for bits in sorted({row["bits"] for row in rows}):
            own = [row for row in rows if row["model"] == model and row["bits"] == bits and not row["same"]]
            if own:
                ratios = [row["ratio"] for row in own]
                summary[f"{model}, {bits:.3f} bits"] = {
                    "seeds": len(own),
                    "better": sum(row["better"] for row in own),
                    "ratio": {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)},
                }
    return summary


def _line(row: dict[str, Any]) -> str:
    words = "the same" if row["same"] else f"{row['ratio']:.2f} times less" if row["better"] else "NOT better"
    uniform = row["uniform_errors"][row["best_uniform"]]
    return (
        f"seed {row['seed']} {row['model']:<9}{row['bits']:7.3f} bits  "
        f"{row['best_uniform']:<17}{100 * uniform:8.3f} %  "
        f"mixed {100 * row['mixed_error']:8.3f} %: {words}"
    )


if __name__ == "__main__":
    sys.exit(main())
