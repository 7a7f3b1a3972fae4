"""A policy server without engines, to measure and strain the server itself: a tick takes as long as it is told to, and
every row of its answer is the state that came in, so that an answer shows whose it is. The instruction "die" kills the
thread of the engines. `--ledger` says at the end how many requests of each instruction were accepted.

    python benchmarks/made_server.py --port 8000 --tick-ms 5
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from motedge.client import protocol
from motedge.errors import EXIT_INTERNAL, HostError, InternalError
from motedge.runtime.policy import ActionChunk
from motedge.serve.access import read_token
from motedge.serve.allocator import keep_freed_memory
from motedge.serve.gpu_thread import GpuThread
from motedge.serve.job import Job
from motedge.serve.options import ServeOptions
from motedge.serve.policy_request import PolicyRequest

ROWS, RATE_HZ = 32, 15.0
FIELDS = (*(f"joint_position_{index}" for index in range(7)), "gripper_position")
UNITS = (*["rad"] * 7, "fraction closed")
# What no robot is told
DEADLY = "die"
_STARTED = re.compile(r"listening on port (\d+)")


class MadeResident:
    """See `motedge.serve.resident.Resident`."""

    def __init__(self, generation: int, tick_s: float) -> None:
        """`tick_s`: of each tick; slept, as a thread waits for a GPU."""
        self.generation, self.model, self.reasoner, self._tick_s = generation, "made", None, tick_s
        self.metadata: dict[str, Any] = {
            "schema": protocol.METADATA_SCHEMA,
            "embodiment": "droid_lerobot",
            "rate_hz": RATE_HZ,
            "action_rows": ROWS,
            "action_fields": list(FIELDS),
            "action_units": list(UNITS),
        }

    def act(self, request: PolicyRequest, arrived_s: float, due_s: float | None) -> ActionChunk:
        """The state, in every row."""
        if request.observation.instruction == DEADLY:
            raise SystemExit("told to die")
        if self._tick_s:
            time.sleep(self._tick_s)
        state = [*request.observation.joint_position.tolist(), request.observation.gripper_position]
        return ActionChunk(
            actions=np.tile(np.array(state, np.float32), (ROWS, 1)),
            rate_hz=RATE_HZ,
            field_names=FIELDS,
            units=UNITS,
            embodiment="droid_lerobot",
            seed=request.seed or 0,
            forwards=5,
            missing_views=(),
            timings_ms={"total_ms": 1e3 * self._tick_s},
            details={},
            age_s=time.monotonic() - arrived_s,
        )

    def keep(self, request: PolicyRequest, chunk: ActionChunk) -> None:
        """Nothing is recorded."""

    def leave(self) -> None:
        """Nothing to give up."""

    def think(self) -> bool:
        """Nothing to think about."""
        return False

    def close(self) -> None:
        """Nothing to free."""


@contextlib.contextmanager
def running(tick_ms: float = 0.0, **limits: Any) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """This program in a process of its own, which has nothing of the measuring one's; the process and its port."""
    words = [sys.executable, str(Path(__file__).resolve()), "--port", "0", "--tick-ms", str(tick_ms)]
    for name, value in limits.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        found = _STARTED.search(process.stdout.readline() if process.stdout else "")
        if found is None:
            raise HostError("the server did not start", fix="run it by hand: python benchmarks/made_server.py")
        yield process, int(found.group(1))
    finally:
        process.kill()
        process.wait(10)


def accepted_requests() -> Counter[str]:
    """Counts from now on, by their instruction, the requests that this process takes: those owe an answer."""
    counts: Counter[str] = Counter()
    submit = GpuThread.submit

    def counted(thread: GpuThread, job: Job) -> None:
        submit(thread, job)
        counts[job.request.observation.instruction] += 1

    GpuThread.submit = counted  # type: ignore[method-assign]
    return counts


def main() -> int:
    """Serves until it is told to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--tick-ms", type=float, default=0.0)
    parser.add_argument("--waiting", type=int, default=64)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--drain-s", type=float, default=10.0)
    parser.add_argument("--message-bytes", type=int, default=16 << 20)
    parser.add_argument("--token-file")
    parser.add_argument("--ledger", type=Path)
    args = parser.parse_args()

    # As the command does
    keep_freed_memory()
    accepted = accepted_requests()

    async def serve() -> None:
        from motedge.serve.server import PolicyServer

        options = ServeOptions(
            port=args.port,
            token=None if args.token_file is None else read_token(args.token_file),
            waiting=args.waiting,
            connections=args.connections,
            drain_s=args.drain_s,
            message_bytes=args.message_bytes,
            rate_hz=1e6,
        )
        server = PolicyServer(lambda generation: MadeResident(generation, args.tick_ms / 1e3), options)
        await server.run(lambda: print(f"listening on port {server.port}", flush=True))

    try:
        asyncio.run(serve())
    except InternalError as error:
        print(error, file=sys.stderr)
        return EXIT_INTERNAL
    finally:
        if args.ledger is not None:
            args.ledger.write_text(json.dumps(accepted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
