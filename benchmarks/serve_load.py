"""The server under load and ill use, each phase on a server of its own, on loopback.

    python benchmarks/serve_load.py --out benchmarks/results/serve_load.json

load: robots that ask as fast as they get answers, beside clients that vanish, stall, send halves, noise and too much;
SIGTERM while all of them go on. dead_thread, wrong_tokens, large_pictures, full_disk: a fault each. fuzz: messages that
hypothesis makes. Ticks are made up, but for large_pictures and full_disk, which `motedge serve` answers with a tiny
bundle: --bundle, or one that is made first.

Fails if an answer is lost or another's, if a request that was accepted before SIGTERM is not answered, if the server's
memory grows, if it does not end in time, or not with 0, and if anybody gets what they may not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

from conditions import SCHEMA, collect_conditions, load_average
from made_server import running
from serve_fuzz import fuzz
from serve_phases import dead_thread, full_disk, large_pictures, wrong_tokens
from serve_strain import strain, strain_troubles

from motedge.errors import GateError, HostError, MotedgeError
from motedge.files import write_json

# Of a megabyte: what an allocator keeps back is no leak, what grows with the requests is
_GROWTH_MB = 8.0
_PHASES = ("load", "dead_thread", "wrong_tokens", "fuzz", "large_pictures", "full_disk")
_OF_A_BUNDLE = ("large_pictures", "full_disk")
_AFTER_TIMES = ("fuzz", *_OF_A_BUNDLE)


# Frames and rows of the DROID policy, which acts on them; the picture is small
_SHAPES = """\
canvas = [96, 112]
content = [84, 107]
frames = 33
actions = 33
fps = 15.0
max_latent_frames = 9
max_actions = 65
"""


def make_bundle(folder: Path) -> Path:
    """A tiny policy with its reasoner, random weights, small pictures; in processes of their own."""
    shapes, checkpoint, bundle = (folder / name for name in ("shapes.toml", "checkpoint", "bundle"))
    shapes.write_text(_SHAPES, encoding="utf-8")
    make = ("checkpoint", "make", checkpoint, "--variant", "policy-droid", "--seed", "7")
    export = ("export", checkpoint, "--out", bundle, "--shape-set", shapes, "--extras", "reasoner", "--samples", "none")
    for words in (make, export):
        command = [sys.executable, "-m", "motedge", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise HostError(f"no bundle: motedge {words[0]} failed", got=done.stderr[-400:])
    return bundle


def live_fuzz(count: int) -> dict[str, Any]:
    """So many messages of hypothesis', on one server."""
    with running(0.0, message_bytes=100_000) as (process, port):
        told = fuzz(f"ws://127.0.0.1:{port}", count)
        lives = process.poll() is None
    sent = sum(told.values())
    wrong = [*([] if lives else ["the server is gone"]), *([f"{sent} were sent"] if sent < count else [])]
    return {"messages": sent, "told": told, "wrong": wrong}


def run_phases(args: argparse.Namespace, folder: Path, pool: Executor) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each, by name, and what it found. The bundle is made beside those in which nothing is timed."""

    def load() -> dict[str, Any]:
        found = strain(args.clients, args.nuisances, args.seconds, args.tick_ms)
        return {**found, "wrong": strain_troubles(found, _GROWTH_MB)}

    made: Optional[Future[Path]] = None

    def bundle() -> Path:
        return args.bundle if made is None else made.result()

    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "load": load,
        "dead_thread": dead_thread,
        "wrong_tokens": wrong_tokens,
        "fuzz": lambda: live_fuzz(args.messages),
        "large_pictures": lambda: large_pictures(bundle()),
        "full_disk": lambda: full_disk(bundle()),
    }
    for name in _PHASES:
        if name in _AFTER_TIMES and made is None and args.bundle is None and set(_OF_A_BUNDLE) & set(args.only):
            made = pool.submit(make_bundle, folder)
        if name in args.only:
            began = time.monotonic()
            yield name, {**runs[name](), "took_s": round(time.monotonic() - began, 1)}


def main() -> int:
    """Runs the phases, prints, writes, judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--nuisances", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the load")
    parser.add_argument("--tick-ms", type=float, default=2.0)
    parser.add_argument("--messages", type=int, default=10_000, help="of the fuzzer")
    parser.add_argument("--bundle", type=Path, help="a policy with its reasoner; default: a tiny one is made")
    parser.add_argument("--only", nargs="+", choices=_PHASES, default=list(_PHASES))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    conditions, found = collect_conditions(1), {}  # type: dict[str, Any], dict[str, dict[str, Any]]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        for name, result in run_phases(args, Path(folder), pool):
            found[name] = result
            print(f"{name}: {result}\n", flush=True)
    if args.out:
        settings = {name: getattr(args, name) for name in ("clients", "nuisances", "seconds", "tick_ms", "messages")}
        document = {"schema": SCHEMA, "name": "serve_load", "conditions": conditions, "settings": settings}
        write_json(args.out, {**document, **found, "load_average_after": load_average()})
    troubles = [f"{name}: {trouble}" for name, result in found.items() for trouble in result["wrong"]]
    if troubles:
        raise GateError("the server did not stand it", got="; ".join(troubles[:5]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MotedgeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
