"""A slow policy drives a made arm: chunks in flight, and the envelope in front of the robot. Simulated time, no GPU.

    python examples/chunk_stream.py --latency-ms 300 --seconds 20

The policy takes `--latency-ms` for a chunk of 32 rows, sometimes much longer, and now and then answers with a jump. The
arm (a Franka Panda as in DROID) gets one action every 1/15 s and never one outside its limits.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motedge.client import ActionEnvelope, ChunkStream, SimulatedClock, SimulatedWorker, StreamOptions
from motedge.errors import MotedgeError

RATE_HZ = 15.0
ROWS = 32
# A pose in the middle of the ranges: seven joints in rad, the gripper open
START = np.array([0.0, -0.6, 0.0, -2.2, 0.0, 1.6, 0.0, 0.0])


class Policy:
    """Swings the arm about its start; every seventh chunk is 0.4 rad off in all joints."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self._chunks = 0

    def observe(self) -> float:
        """When the observation was made, s."""
        return self._clock.now_s()

    def __call__(self, observed_s: float, committed: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [32, 8]: where the arm should be in each period after the observation."""
        self._chunks += 1
        time_s = observed_s + (np.arange(ROWS)[:, None] + 1) / RATE_HZ
        rows = START + 0.3 * np.sin(0.8 * time_s) * np.array([1, 1, 1, 1, 1, 1, 1, 0])
        rows[:, :7] += 0.4 * (self._chunks % 7 == 0)
        rows[:, 7] = np.floor(time_s[:, 0] / 4) % 2
        return rows


def drive(seconds: float, latency_ms: float, seed: int) -> dict[str, Any]:
    """Runs the loop; the stream's report, the envelope's counters, and how fast the arm was commanded at most."""
    clock, draw = SimulatedClock(), random.Random(seed)
    policy = Policy(clock)

    def latency_s(number: int) -> float:
        # One request in ten waits for something else on the machine
        return latency_ms / 1e3 * (draw.uniform(5, 12) if draw.random() < 0.1 else draw.uniform(0.9, 1.2))

    options = StreamOptions(rate_hz=RATE_HZ, horizon=12, prefetch_lead_s=0.4, switched_fields=(7,))
    worker = SimulatedWorker(clock, latency_s)
    envelope = ActionEnvelope.for_embodiment("droid_lerobot")
    envelope.reset(START)
    speed_rad_s = 0.0
    with ChunkStream(policy, policy.observe, options, clock=clock, worker=worker) as stream:
        stream.wait_first(timeout_s=30.0)
        sent, sent_s = START, clock.now_s() - options.period_s
        while clock.now_s() < seconds:
            action = stream.next_action()
            now_s = clock.now_s()
            # On a robot this is what goes to its controller
            command = envelope.apply(action.row, now_s - sent_s).action
            speed_rad_s = max(speed_rad_s, float(np.abs(command[:7] - sent[:7]).max()) / (now_s - sent_s))
            sent, sent_s = command, now_s
            # The loop wakes up to 2 ms late
            clock.sleep(stream.next_due_s() - now_s + draw.uniform(0, 0.002))
        return {
            "stream": stream.report().to_dict(),
            "envelope": envelope.counters.to_dict(),
            "fastest_joint_rad_s": round(speed_rad_s, 3),
        }


def main() -> int:
    """Prints the report as JSON; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="simulated time (default 20)")
    parser.add_argument("--latency-ms", type=float, default=300.0, help="of the policy (default 300)")
    parser.add_argument("--seed", type=int, default=3, help="of the made trouble (default 3)")
    args = parser.parse_args()
    if not (math.isfinite(args.seconds) and 0 <= args.latency_ms < math.inf):
        parser.error("--seconds and --latency-ms must be finite, the latency 0 or more")
    try:
        print(json.dumps(drive(args.seconds, args.latency_ms, args.seed), indent=2))
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
