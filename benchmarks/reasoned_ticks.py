"""What thinking costs a policy that acts every tick: time of its ticks before, at and after the change of plan, and of
the slices between them.

With random weights, which write no plan by themselves: the tokens of one are put in the place of those that the model
would choose, after each of its forwards. The times are those of real weights of this size, the actions mean nothing.

    python benchmarks/reasoned_ticks.py --work out/reasoned_ticks --threads 1
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from conditions import SCHEMA, collect_conditions, load_average, usable_threads

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import GateError, MotedgeError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.shapes import load_shape_set
from motedge.export.variants import REFERENCE
from motedge.files import write_json
from motedge.runtime.policy import Observation
from motedge.runtime.reasoned.loader import load_reasoned_policy
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.runtime.reasoned.policy import ReasonedPolicy
from motedge.runtime.reasoner.sampling import Sampler
from motedge.runtime.text.codec import TextCodec

NOTE = (
    "weights are random and the plan's tokens are put in their place: the times are those of real weights of this "
    "size, the actions mean nothing"
)
PLAN = json.dumps({"plan": ["reach for the cup", "lift it", "put it down on the shelf"]})
# Way -> its slice; "whole" thinks before it acts
WAYS: dict[str, dict[str, Any]] = {
    "whole": {},
    "8 tokens": {"slice_tokens": 8},
    "32 tokens": {"slice_tokens": 32},
    "20 ms": {"slice_ms": 20.0},
}
# Ticks that warm up, and those after the change of plan
_WARM, _AFTER, _MOST = 2, 5, 2000


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints a table, writes the JSON; 1 when a tick that changes the plan paid for a prefill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keeps checkpoint and bundle here and uses them again (else: none)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON")
    parser.add_argument("--size", default="tiny", help="of Edge: tiny, small or full (default tiny)")
    parser.add_argument("--shape-set", default="droid", help="as for motedge export (default droid)")
    parser.add_argument("--threads", type=int, help="threads (default: one a core)")
    args = parser.parse_args(arguments)
    try:
        if args.work is not None:
            result = run(args, args.work)
        else:
            with tempfile.TemporaryDirectory() as folder:
                result = run(args, Path(folder))
        args.results.mkdir(parents=True, exist_ok=True)
        write_json(args.results / "reasoned_ticks.json", result)
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print_table(result["rows"])
    return 0


def make_bundle(args: argparse.Namespace, work: Path) -> Bundle:
    """The checkpoint and its bundle, made once."""
    checkpoint, bundle = work / "checkpoint", work / "bundle"
    if not checkpoint.exists():
        make_checkpoint(checkpoint, "edge", "policy-droid", args.size, seed=0)
    if not bundle.exists():
        options = ExportOptions(load_shape_set(args.shape_set), (REFERENCE,), "none", ("reasoner",))
        export_bundle(Checkpoint.open(checkpoint), bundle, options)
    return Bundle.open(bundle)


def run(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Every way on one bundle.

    Raises:
        GateError: a change of plan cost a prefill, or the plan was not taken.
    """
    threads = usable_threads(args.threads)
    bundle = make_bundle(args, work)
    conditions = collect_conditions(threads)
    rows = []
    for way, slices in WAYS.items():
        with (
            written(bundle),
            load_reasoned_policy(
                bundle.root, ReasonOptions(every=_MOST, **slices), check="size", threads=threads
            ) as acting,
        ):
            rows.append({"way": way, **measure(acting, bool(slices))})
            print(f"{way}: done", file=sys.stderr)
    return {
        "schema": SCHEMA,
        "benchmark": "reasoned_ticks",
        "conditions": {**conditions, "load_average_end": load_average()},
        "note": NOTE,
        "model": {"family": "edge", "size": args.size, "shape_set": args.shape_set},
        "rows": rows,
    }


@contextmanager
def written(bundle: Bundle) -> Iterator[None]:
    """The reasoner chooses the tokens of PLAN, one a forward."""
    tokens = TextCodec.read(bundle.path("tokenizer")).encode(PLAN).tolist()
    tokens.append(bundle.manifest.model["special_tokens"]["eos"])
    counts: dict[int, int] = {}

    def choose(sampler: Sampler, logits: Any) -> int:
        index = counts.get(id(sampler), 0)
        counts[id(sampler)] = index + 1
        return int(tokens[index % len(tokens)])

    with mock.patch.object(Sampler, "next", choose):
        yield


def measure(acting: ReasonedPolicy, sliced: bool) -> dict[str, Any]:
    """Ticks until the plan is taken and some after it. Warm-up ticks have the same instruction, and are not counted."""
    image = np.random.RandomState(0).randint(0, 256, (540, 640, 3)).astype(np.uint8)
    seen = Observation(np.zeros(7), 0.0, "put the cup away", image=image)
    for seed in range(_WARM):
        acting.policy.act(seen, seed=seed)
    ticks: list[dict[str, Any]] = []
    thinking_ms: list[float] = []
    left, going = _AFTER, sliced
    while left and len(ticks) < _MOST:
        begin, begin_cpu = time.perf_counter(), time.process_time()
        chunk = acting.act(seen, seed=len(ticks))
        taken = {"ms": 1e3 * (time.perf_counter() - begin), "cpu_ms": 1e3 * (time.process_time() - begin_cpu)}
        planned = chunk.reasoning is not None and not chunk.reasoning.fell_back
        ticks.append({**taken, "planned": planned, "prefills": chunk.details["prefills"]})
        left -= planned
        if going:
            begin = time.perf_counter()
            going = acting.think()
            thinking_ms.append(1e3 * (time.perf_counter() - begin))
    change = next((index for index, tick in enumerate(ticks) if tick["planned"]), None)
    if change is None or any(tick["prefills"] for tick in ticks):
        raise GateError("a plan was not taken, or a tick paid for a prefill", got=ticks[-1])
    reasoning = chunk.reasoning
    return {
        "ticks_until_plan": change,
        **{
            f"tick_{kind}_{when}": _median(tick[kind] for tick in part)
            for kind in ("ms", "cpu_ms")
            for when, part in (
                ("before", ticks[:change]),
                ("at_change", ticks[change : change + 1]),
                ("after", ticks[change + 1 :]),
            )
        },
        "prefills_at_change": ticks[change]["prefills"],
        "slice_ms_median": _median(thinking_ms),
        "slice_ms_longest": round(max(thinking_ms), 3) if thinking_ms else None,
        "reply_tokens": reasoning.tokens,
        "thought_ms": {name: round(value, 3) for name, value in reasoning.timings_ms.items()},
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """The rows as text."""
    ticks = [f"tick_cpu_ms_{when}" for when in ("before", "at_change", "after")]
    columns = ("ticks_until_plan", *ticks, "slice_ms_median", "slice_ms_longest")
    print(f"{'slice':<10}" + "".join(f"{name:>24}" for name in columns))
    for row in rows:
        print(f"{row['way']:<10}" + "".join(f"{row[name]!s:>24}" for name in columns))


def _median(values: Any) -> float | None:
    found = list(values)
    return round(statistics.median(found), 3) if found else None


if __name__ == "__main__":
    sys.exit(main())
