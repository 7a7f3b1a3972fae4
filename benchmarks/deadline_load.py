"""Deadlines while other work wants the same machine: what is met, what is chosen, how punctual the answers are.

For each priority of the policy's stream and each load: the best point's latency without and with the load, then ticks
under a deadline in three phases, before, during and after the load.

    python benchmarks/deadline_load.py --bundle BUNDLE                                     on the CPU
    python benchmarks/deadline_load.py --bundle BUNDLE --engine onnxruntime-cuda           on the GPU
    python benchmarks/deadline_load.py --synthetic cuda                                    matrix products as ticks

Priorities order the streams of one process; between processes the driver shares the GPU in time slices whatever they
are (unless MPS runs).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from competing_load import LOADS, MATRIX, competing_load
from conditions import SCHEMA, load_average
from gpu_conditions import collect_gpu_conditions, gpu_id
from synthetic_policy import SyntheticPolicy

from motedge.errors import MotedgeError, UsageError
from motedge.files import write_json
from motedge.runtime.deadline import DeadlineMissedError, DeadlineOptions, DeadlinePolicy, Ladder
from motedge.runtime.deadline.policy import ActingPolicy
from motedge.runtime.policy import GpuOptions, Observation, load_policy
from motedge.runtime.policy.chunk import FRESH

NOTE = "weights are random, or ticks matrix products: times are those of such work, the actions mean nothing"
# For latencies: a deadline that nothing misses, so that the best point is always taken
NO_DEADLINE_MS = 600_000.0
# The deadline, where none is given: the best point fits with this much room on an idle machine
ROOM = 1.3
PHASES = ("before", "during", "after")
WARM_UP_ROUNDS = 5


@dataclass
class Phase:
    """Ticks of one phase."""

    name: str
    took_ms: list[float] = field(default_factory=list)
    # Beyond the deadline, of ticks that were not met
    late_answers_ms: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    chosen: dict[str, int] = field(default_factory=dict)
    load_rounds_per_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "phase": self.name,
            **self.counts,
            "chosen": self.chosen,
            "took_ms": spread(self.took_ms),
            "answer_after_deadline_ms": spread(self.late_answers_ms),
            "load_rounds_per_s": self.load_rounds_per_s,
        }


class Borrowed:
    """A policy that outlives the deadlines put on it."""

    def __init__(self, policy: ActingPolicy) -> None:
        self.settings = policy.settings
        self.act = policy.act

    def close(self) -> None:
        """The owner closes it."""


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints a table, writes the JSON after every case."""
    args = parse(arguments)
    cases: list[dict[str, Any]] = []
    conditions = collect_gpu_conditions()
    on_gpu = args.synthetic == "cuda" or (args.synthetic is None and args.engine != "onnxruntime")
    machine = gpu_id(conditions["device"]) if on_gpu else "cpu"
    what = f"_synthetic_{machine}" if args.synthetic else f"_{machine}"
    target = args.results / f"deadline_load{what}.json"
    request = {
        name: getattr(args, name) for name in ("engine", "variant", "synthetic", "ticks", "matrix", "forward_ms")
    }
    try:
        args.results.mkdir(parents=True, exist_ok=True)
        for case in measure(args, on_gpu):
            cases.append(case)
            print_case(case)
            result = {
                "schema": SCHEMA,
                "benchmark": "deadline_load",
                "conditions": {**conditions, "load_average_end": load_average()},
                "note": NOTE,
                "request": request,
                "cases": cases,
            }
            write_json(target, result)
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"written to {target}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--bundle", type=Path, help="a bundle on which a policy acts")
    what.add_argument("--synthetic", choices=("cuda", "cpu"), help="matrix products instead of a bundle's graphs")
    parser.add_argument("--engine", default="onnxruntime", help="backend (default %(default)s)")
    parser.add_argument("--variant", help="as for motedge run")
    parser.add_argument("--ladder", type=Path, help="operating points (TOML)")
    parser.add_argument("--loads", help=f"of {', '.join(LOADS)}; default: all that the engine's device has")
    parser.add_argument("--priorities", help="of the policy's stream; default high,normal on a GPU")
    parser.add_argument("--deadline-ms", type=float, help=f"default: {ROOM} times the best point's typical time")
    parser.add_argument("--period-ms", type=float, help="between ticks; default: the deadline")
    parser.add_argument("--ticks", type=int, default=40, help="of each phase, and of each latency (default 40)")
    parser.add_argument("--forward-ms", type=float, default=10.0, help="of a synthetic forward (default 10)")
    parser.add_argument("--matrix", type=int, default=MATRIX, help="side of the GPU load's matrices (default 8192)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON")
    args = parser.parse_args(arguments)
    if args.ticks < 2:
        parser.error("--ticks must be at least 2")
    return args


def measure(args: argparse.Namespace, on_gpu: bool) -> Iterator[dict[str, Any]]:
    """One case after the other: priority by priority, load by load."""
    loads = args.loads.split(",") if args.loads else [load for load in LOADS if on_gpu or not load.startswith("gpu")]
    for load in loads:
        if load not in LOADS:
            raise UsageError(f"unknown load {load!r}", expected=", ".join(LOADS))
    priorities = (args.priorities or ("high,normal" if on_gpu else "normal")).split(",")
    observation = draw_observation()
    deadline_ms = args.deadline_ms
    for priority in priorities:
        policy = open_policy(args, priority, on_gpu)
        try:
            ladder = Ladder.from_toml(args.ladder, policy.settings) if args.ladder else None
            for load in loads:
                with DeadlinePolicy(Borrowed(policy), ladder, options=DeadlineOptions()) as acting:
                    acting.warm_up(observation, rounds=WARM_UP_ROUNDS)
                    if deadline_ms is None:
                        # Once, so that all cases have the same
                        deadline_ms = round(ROOM * acting.latencies[acting.ladder.best.name]["nominal_ms"], 1)
                    period_ms = args.period_ms or deadline_ms
                    case = run_case(acting, observation, load, args, deadline_ms, period_ms)
                yield {"priority": priority, **case}
        finally:
            policy.close()


def open_policy(args: argparse.Namespace, priority: str, on_gpu: bool) -> Any:
    """The policy to measure."""
    if args.synthetic:
        return SyntheticPolicy(args.synthetic, priority, args.forward_ms)
    options = {"gpu": GpuOptions(priority=priority)} if on_gpu else {}
    return load_policy(args.bundle, engine=args.engine, variant=args.variant, check="size", **options)


def run_case(
    acting: DeadlinePolicy,
    observation: Observation,
    load: str,
    args: argparse.Namespace,
    deadline_ms: float,
    period_ms: float,
) -> dict[str, Any]:
    """Latency without and with the load, then the three phases."""
    warm = acting.latencies
    idle = [tick_ms(acting, observation) for _ in range(args.ticks)]
    with competing_load(load, args.matrix):
        loaded = [tick_ms(acting, observation) for _ in range(args.ticks)]
    # What was tracked under load is not the start of the phase before it
    acting.warm_up(observation, rounds=WARM_UP_ROUNDS)
    phases = []
    for name in PHASES:
        with competing_load(load if name == "during" else "none", args.matrix) as found:
            phase = run_phase(acting, observation, name, args.ticks, deadline_ms, period_ms)
        phase.load_rounds_per_s = found.get("rounds_per_s")
        phases.append(phase)
    return {
        "load": load,
        "deadline_ms": deadline_ms,
        "period_ms": period_ms,
        "ladder": [point.to_dict() for point in acting.ladder],
        "warm_up": warm,
        "latency_ms": {"alone": spread(idle), "with load": spread(loaded)},
        "phases": [phase.to_dict() for phase in phases],
        "counters": acting.counters.to_dict(),
    }


def tick_ms(acting: DeadlinePolicy, observation: Observation) -> float:
    """A tick of the best point."""
    took: float = acting.act(observation, deadline_ms=NO_DEADLINE_MS).details["deadline"]["took_ms"]
    return took


def run_phase(
    acting: DeadlinePolicy, observation: Observation, name: str, ticks: int, deadline_ms: float, period_ms: float
) -> Phase:
    """Ticks at a steady period; one that begins late, because the one before it was, begins at once."""
    phase, before = Phase(name), acting.counters
    next_s = time.monotonic()
    for _ in range(ticks):
        time.sleep(max(next_s - time.monotonic(), 0.0))
        next_s = max(next_s, time.monotonic()) + period_ms / 1e3
        began, fresh = time.perf_counter(), False
        # A tick without an answer is counted, and no reason to stop
        with contextlib.suppress(DeadlineMissedError):
            fresh = acting.act(observation, deadline_ms=deadline_ms).kind == FRESH
        passed_ms = (time.perf_counter() - began) * 1e3
        if fresh:
            phase.took_ms.append(passed_ms)
        else:
            phase.late_answers_ms.append(passed_ms - deadline_ms)
    after = acting.counters
    names = ("ticks", "met", "missed", "failed", "held", "unanswered", "predicted_misses", "crowded_out", "trials")
    phase.counts = {key: getattr(after, key) - getattr(before, key) for key in names}
    phase.chosen = {key: after.chosen[key] - before.chosen[key] for key in after.chosen}
    return phase


def spread(values: list[float]) -> dict[str, Any]:
    """Median, 95th percentile and largest."""
    if not values:
        return {"n": 0}
    p50, p95 = np.percentile(values, (50, 95))
    return {"n": len(values), "p50": round(p50, 3), "p95": round(p95, 3), "max": round(max(values), 3)}


def draw_observation() -> Observation:
    """An image of noise, a pose of the Franka arm in the middle of its workspace."""
    image = np.random.RandomState(7).randint(0, 256, (540, 640, 3)).astype(np.uint8)
    return Observation((0.0, -0.63, 0.0, -2.51, 0.0, 1.88, 0.0), 0.1, "Put the red cup on the plate.", image=image)


def print_case(case: dict[str, Any]) -> None:
    """One case for people."""
    alone, loaded = case["latency_ms"]["alone"], case["latency_ms"]["with load"]
    print(f"\nload {case['load']}, stream priority {case['priority']}, deadline {case['deadline_ms']:g} ms")
    print(f"  best point alone {alone['p50']:.1f} / {alone['p95']:.1f} ms (p50 / p95), with load ", end="")
    print(f"{loaded['p50']:.1f} / {loaded['p95']:.1f} ms")
    for phase in case["phases"]:
        chosen = ", ".join(f"{name} {count}" for name, count in phase["chosen"].items() if count)
        print(
            f"  {phase['phase']:<7} met {phase['met']:>4} of {phase['ticks']}, held {phase['held']:>3}, "
            f"unanswered {phase['unanswered']:>3}   {chosen}"
        )


if __name__ == "__main__":
    sys.exit(main())
