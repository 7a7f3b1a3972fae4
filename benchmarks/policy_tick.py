"""One policy tick on this machine's CPU against the same request in torch eager through diffusers' modules, one run.

Both sides get the same image, state, prompt, noise, weights (fp32) and number of threads, and take turns in one
process. Where they are asked for the same steps and guidance, their actions must agree, or no figures are written.

    python benchmarks/policy_tick.py --work out/policy_tick --rounds 3
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from conditions import SCHEMA, collect_conditions, load_average, usable_threads
from generator_forwards import forward_ways
from interleave import Measured, Way, measure
from policy_scene import Scene, describe_request, make_scene

from motedge.errors import GateError, InternalError, MotedgeError
from motedge.files import write_json
from motedge.runtime.policy import ActionChunk, Policy

# Largest difference of any action (rad, or fraction) between two ways of the same request, and of any velocity
LIMIT = 1e-4
# Share of the threads' time that other processes may take before a run counts as disturbed
QUIET_SHARE = 0.05
NOTE = "weights are random: the time is that of real weights of this size, the actions mean nothing"
# Way of the tick -> what it is, whether guidance runs at every step, and whose it is
TICKS: Mapping[str, tuple[str, bool, str]] = {
    "diffusers": ("whole clip encoded, reasoner in every forward, guidance at every step", True, "diffusers"),
    "diffusers-one-frame": ("the same, but only the image is encoded", True, "diffusers"),
    "diffusers-interval": ("the same, and guidance only in the policy's interval", False, "diffusers"),
    "modules": ("our loop on our modules in torch eager; both prompts encoded, once a tick", True, "motedge"),
    "equal": ("our loop on the graphs in onnxruntime; both prompts encoded, once a tick", True, "motedge"),
    "kept": ("the same, but K and V of both prompts kept from the tick before", True, "motedge"),
    "warm": ("the same, and guidance only in the policy's interval: as a bundle's policy runs", False, "motedge"),
    "first": ("as a bundle's policy runs, first tick after loading", False, "motedge"),
}
# The way from diffusers' tick to ours, one change at a time
ACCOUNT = (
    ("diffusers", "diffusers-one-frame", "VAE: one frame instead of the clip"),
    ("diffusers-one-frame", "modules", "reasoner once a prompt and tick instead of in every forward"),
    ("modules", "equal", "graphs in onnxruntime instead of torch eager"),
    ("equal", "kept", "K and V of both prompts kept across ticks"),
    ("kept", "warm", "guidance only in the policy's interval"),
)
RATIOS = {
    "warm tick": ("diffusers", "warm"),
    "first tick": ("diffusers", "first"),
    "equal settings: guidance at every step on both sides": ("diffusers", "equal"),
    "equal settings, and one frame encoded on both sides": ("diffusers-one-frame", "equal"),
    "warm tick, and diffusers given one-frame VAE and interval": ("diffusers-interval", "warm"),
}


class FirstTick:
    """A policy that is loaded anew before each tick, so that nothing is kept."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._policy: Policy | None = None

    def load(self) -> None:
        """Loads; not timed."""
        self.close()
        self._policy = self._scene.load()

    def act(self) -> ActionChunk:
        """The first tick."""
        if self._policy is None:
            raise InternalError("the first tick was asked for before loading")
        return self._policy.act(self._scene.observation)

    def close(self) -> None:
        """Closes what is loaded."""
        if self._policy is not None:
            self._policy.close()
            self._policy = None


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints a table, writes the JSON; 1 when both sides do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keeps checkpoint and bundle here and uses them again (else: none)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON")
    parser.add_argument("--family", default="edge", help="edge, nano or super (default edge)")
    parser.add_argument("--size", default="small", help="tiny, small or full (default small)")
    parser.add_argument("--shape-set", default="droid", help="as for motedge export (default droid)")
    parser.add_argument("--rounds", type=int, default=3, help="times that every way is run (default 3)")
    parser.add_argument("--threads", type=int, help="threads of both sides (default: one a core)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the noise (default 0)")
    args = parser.parse_args(arguments)
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        if args.work is not None:
            result = run(args, args.work)
        else:
            with tempfile.TemporaryDirectory() as folder:
                result = run(args, Path(folder))
        args.results.mkdir(parents=True, exist_ok=True)
        target = args.results / "policy_tick.json"
        write_json(target, result)
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print_tables(result)
    print(f"written to {target}")
    if result["conditions"]["quiet"] is False:
        print(
            "the machine was busy (column others): torch suffers more from that, so don't quote these", file=sys.stderr
        )
    return 0


def run(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Everything from checkpoint to figures.

    Raises:
        GateError: the two sides do not compute the same.
    """
    threads = usable_threads(args.threads)
    model = {"family": args.family, "size": args.size, "shape_set": args.shape_set}
    scene = make_scene(work, **model, threads=threads, seed=args.seed)
    # After the preparation, whose load is not the measurement's
    conditions = collect_conditions(threads)
    first = FirstTick(scene)
    try:
        ways = tick_ways(scene, first)
        ticks = measure(ways, args.rounds, warmup=("diffusers", "kept"), parts=_parts, report=_progress)
        groups = [[name for name, (_, always, _) in TICKS.items() if always is kind] for kind in (True, False)]
        actions = check_agreement({name: entry.result.actions for name, entry in ticks.items()}, groups)
        forwards, velocities = measure_forwards(scene, args.rounds)
        request = describe_request(scene)
    finally:
        first.close()
        scene.close()
    end = {"load_average_end": load_average(), "quiet": is_quiet([*ticks.values(), *forwards.values()], threads)}
    return {
        "schema": SCHEMA,
        "benchmark": "policy_tick",
        "conditions": {**conditions, **end},
        "note": NOTE,
        "request": {**request, "rounds": args.rounds},
        "rows": [_row(name, entry) for name, entry in ticks.items()],
        "forwards": [{"what": name, **entry.to_dict()} for name, entry in forwards.items()],
        "ratios": {what: _ratio(ticks, *pair) for what, pair in RATIOS.items()},
        "account": account(ticks),
        "parity": {"limit": LIMIT, "actions": actions, "velocities": velocities},
    }


def tick_ways(scene: Scene, first: FirstTick) -> dict[str, Way]:
    """The ways of TICKS, ready to run."""
    peer, seen, always = scene.peer, scene.observation, scene.always
    policy, prompts = scene.graphs.policy, scene.graphs.loop.prompts
    modules = scene.modules

    def remember() -> None:
        if len(prompts) < 2:
            policy.act(seen, settings=always)

    return {
        "diffusers": Way(lambda: peer.act(seen, always)),
        "diffusers-one-frame": Way(lambda: peer.act(seen, always, one_frame=True)),
        "diffusers-interval": Way(lambda: peer.act(seen, policy.settings, one_frame=True)),
        "modules": Way(lambda: modules.policy.act(seen, settings=always), modules.loop.prompts.clear),
        "equal": Way(lambda: policy.act(seen, settings=always), prompts.clear),
        "kept": Way(lambda: policy.act(seen, settings=always), remember),
        "warm": Way(lambda: policy.act(seen), remember),
        "first": Way(first.act, first.load),
    }


def measure_forwards(scene: Scene, rounds: int) -> tuple[dict[str, Measured], dict[str, float]]:
    """Single forwards of the generator on the request's first step, and how far they differ."""
    ways = forward_ways(scene)
    # Three a round, for a forward is short
    forwards = measure(ways, 3 * rounds, warmup=tuple(ways), report=_progress)
    flat = {name: np.concatenate([part.ravel() for part in entry.result]) for name, entry in forwards.items()}
    return forwards, check_agreement(flat, [list(flat)])


def check_agreement(results: Mapping[str, np.ndarray], groups: list[list[str]]) -> dict[str, float]:
    """The largest difference of each result from the first of its group.

    Raises:
        GateError: one is beyond LIMIT, or not finite: times of different results can't be compared.
    """
    differences = {}
    for reference, *others in groups:
        for name in others:
            difference = float(np.abs(results[name] - results[reference]).max())
            if not difference <= LIMIT:
                raise GateError(
                    f"{name} does not compute what {reference} computes",
                    expected=f"values within {LIMIT}",
                    got=f"a difference of {difference:.3g}",
                    why="the time of another result says nothing",
                    fix="motedge verify on the bundle; tests/integration/test_parity.py finds the graph",
                )
            differences[f"{name} against {reference}"] = difference
    return differences


def is_quiet(measured: Iterable[Measured], threads: int) -> bool | None:
    """Whether other processes left the machine alone; None where the system does not tell.

    torch's threads wait for one another at the end of every operator, so that a busy machine slows torch down more
    than onnxruntime: figures of a busy machine flatter us.
    """
    shares = [
        sum(entry.others_cpu_ms) / (sum(entry.wall_ms) * threads) for entry in measured if len(entry.others_cpu_ms)
    ]
    return max(shares) <= QUIET_SHARE if shares else None


def account(ticks: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """Where the ratio comes from: what each change alone does, in order; the factors' product is the whole."""
    return [
        {
            "change": change,
            "from": before,
            "to": after,
            "from_ms": round(ticks[before].median_ms, 3),
            "to_ms": round(ticks[after].median_ms, 3),
            "factor": _ratio(ticks, before, after),
        }
        for before, after, change in ACCOUNT
    ]


def print_tables(result: Mapping[str, Any]) -> None:
    """The figures for people."""
    print(f"{'tick':<22} {'median':>10} {'min':>10} {'max':>10} {'CPU':>10} {'others':>10}  fwd")
    for row in result["rows"]:
        print(f"{row['id']:<22} {_times(row)} {row['forwards']:>4}  {row['what']}")
    print(f"\n{'one forward':<38} {'median':>10} {'min':>10} {'max':>10} {'CPU':>10} {'others':>10}")
    for row in result["forwards"]:
        print(f"{row['what']:<38} {_times(row)}")
    print("\naccount")
    for step in result["account"]:
        print(f"  {step['factor']:5.2f} x  {step['change']}")
    print("\nratios")
    for what, ratio in result["ratios"].items():
        print(f"  {ratio:5.2f} x  {what}")
    conditions = result["conditions"]
    print(
        f"\n{conditions['cpu']}, {conditions['threads']} threads, load {conditions['load_average']}; {result['note']}"
    )


def _row(name: str, entry: Measured) -> dict[str, Any]:
    what, _, side = TICKS[name]
    return {"id": name, "side": side, "what": what, "forwards": entry.result.forwards, **entry.to_dict()}


def _parts(result: Any) -> Mapping[str, float]:
    parts: Mapping[str, float] = result.timings_ms
    return parts


def _ratio(ticks: Mapping[str, Measured], before: str, after: str) -> float:
    return round(ticks[before].median_ms / ticks[after].median_ms, 3)


def _times(row: Mapping[str, Any]) -> str:
    keys = ("median_ms", "min_ms", "max_ms", "cpu_ms", "others_cpu_ms")
    return " ".join(f"{row[key]:>7.0f} ms" if key in row else " " * 10 for key in keys)


def _progress(name: str, wall_ms: float) -> None:
    if sys.stderr.isatty():
        print(f"{name:<38} {wall_ms:9.0f} ms", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
