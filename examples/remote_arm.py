"""A robot's loop against a policy server, in real time: pictures and state over the socket, actions in the envelope.

    motedge serve bundle                                            # in one terminal
    python examples/remote_arm.py --url ws://127.0.0.1:8000         # in another

Chunks overlap: the next is asked for while the last one is executed. `--open-loop` is what DROID's and RoboLab's
clients do instead: all 32 actions, and only then the next question, whose answer the arm waits for.

The arm is made: each joint follows its command with a lag, as a position controller lets it. The pictures are drawn
from its joints, as three cameras would see a chain of links. On a robot, `Arm` is what talks to the controller and the
cameras; the rest stays as it is. Needs motedge[client].
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motedge.client import (
    ActionEnvelope,
    ChunkStream,
    MonotonicClock,
    RemoteOptions,
    RemotePolicy,
    StreamOptions,
    droid_observation,
    read_token,
)
from motedge.errors import MotedgeError

RATE_HZ = 15.0
# A pose in the middle of the ranges: seven joints in rad, the gripper open
START = np.array([0.0, -0.6, 0.0, -2.2, 0.0, 1.6, 0.0, 0.0])
# Share of the way to its command that a joint goes in a period
_FOLLOWS = 0.6
# Actions of a chunk, all of which DROID's clients execute
_OPEN_LOOP_ROWS = 32
_ROWS, _COLUMNS = 360, 640
_LINKS_M = np.array([0.33, 0.32, 0.08, 0.38, 0.09, 0.11, 0.1])


class Arm:
    """Seven joints and a gripper; what the policy has to know of the robot, and how it is commanded."""

    def __init__(self) -> None:
        self.state = START.copy()

    def observe(self, prompt: str) -> dict[str, Any]:
        """State and pictures at this moment."""
        views = {"wrist": 0.0, "left": -0.5, "right": 0.5}
        pictures: dict[str, Any] = {name: self._picture(turn) for name, turn in views.items()}
        return droid_observation(self.state[:7], float(self.state[7]), prompt, **pictures)

    def command(self, action: NDArray[np.float64]) -> None:
        """The controller's next target; DROID closes the gripper above 0.5."""
        target = np.append(action[:7], float(action[7] > 0.5))
        self.state += _FOLLOWS * (target - self.state)

    def _picture(self, turn_rad: float) -> NDArray[np.uint8]:
        """uint8 [360, 640, 3]: the links seen from the side, turned a little."""
        bend = np.cumsum(self.state[:7] * np.array([0, 1, 0, -1, 0, 1, 0])) + math.pi / 2
        x_m, y_m = np.cumsum(_LINKS_M * np.cos(bend)), np.cumsum(_LINKS_M * np.sin(bend))
        x_m = np.insert(x_m * math.cos(self.state[0] + turn_rad), 0, 0.0)
        y_m = np.insert(y_m, 0, 0.0)
        along = np.linspace(0, 7, 1400)
        columns = np.interp(along, np.arange(8), x_m) * 280 + _COLUMNS / 2
        rows = _ROWS - 20 - np.interp(along, np.arange(8), y_m) * 280
        picture = np.full((_ROWS, _COLUMNS, 3), (196, 188, 176), np.uint8)
        for offset in np.linspace(-4, 4, 40):
            row = np.clip(rows + offset, 0, _ROWS - 1).astype(int)
            picture[row, np.clip(columns + offset, 0, _COLUMNS - 1).astype(int)] = (60, 60, 70)
        return picture


def drive(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the loop for so long; what the stream, the envelope and the connection counted."""
    token = None if args.token_file is None else read_token(args.token_file)
    arm, clock = Arm(), MonotonicClock()
    envelope = ActionEnvelope.for_embodiment("droid_lerobot")
    envelope.reset(START)
    expect = {"embodiment": "droid_lerobot", "rate_hz": RATE_HZ}
    # A policy that fails once costs no more than the rows that are there already
    options = StreamOptions(rate_hz=RATE_HZ, on_empty="hold", on_error="report", **_horizon(args))
    remote = RemoteOptions(timeout_s=args.timeout_s, connect_timeout_s=args.connect_timeout_s)
    with (
        RemotePolicy(args.url, token=token, expect=expect, options=remote, tls_ca=args.tls_ca) as policy,
        ChunkStream(policy.act, lambda: arm.observe(args.prompt), options, clock=clock) as stream,
    ):
        stream.wait_first(timeout_s=60.0)
        begun_s = clock.now_s()
        last_s = begun_s - options.period_s
        # An interrupt ends the loop, not the report
        with contextlib.suppress(KeyboardInterrupt):
            while clock.now_s() - begun_s < args.seconds:
                action = stream.next_action()
                if action.error is not None:
                    print(f"no new chunk: {action.error}", file=sys.stderr)
                now_s = clock.now_s()
                arm.command(envelope.apply(action.row, now_s - last_s).action)
                last_s = now_s
                clock.sleep(stream.next_due_s() - clock.now_s())
        return {
            "server": {key: policy.metadata.get(key) for key in ("family", "checkpoint", "bundle_sha256")},
            "connection": {"reconnects": policy.reconnects, "late_answers": policy.late_answers},
            "stream": stream.report().to_dict(),
            "envelope": envelope.counters.to_dict(),
            "state": [round(float(value), 4) for value in arm.state],
        }


def _horizon(args: argparse.Namespace) -> dict[str, Any]:
    """When chunks are asked for. In the open loop that is with the last action, and nothing is blended."""
    if args.open_loop:
        return {"horizon": _OPEN_LOOP_ROWS, "prefetch_at": _OPEN_LOOP_ROWS - 1, "seam": "cut"}
    return {"horizon": args.horizon, "prefetch_lead_s": args.lead_s}


def main() -> int:
    """Prints the report as JSON; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="ws://127.0.0.1:8000")
    parser.add_argument("--token-file", type=Path, help="the secret that the server asks for")
    parser.add_argument("--tls-ca", help="of the authority of the server's certificate (wss://)")
    parser.add_argument("--prompt", default="pick up the cup")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--open-loop", action="store_true", help="execute all 32 actions, then ask and wait")
    parser.add_argument("--horizon", type=int, default=24, help="rows executed of each chunk (default 24)")
    parser.add_argument("--lead-s", type=float, default=0.8, help="how long before their end the next is asked for")
    parser.add_argument("--timeout-s", type=float, default=5.0, help="of a request")
    parser.add_argument("--connect-timeout-s", type=float, default=300.0, help="for a server that still loads")
    args = parser.parse_args()
    if not math.isfinite(args.seconds):
        parser.error("--seconds must be finite")
    # What the client has to say while it waits for the server
    logging.basicConfig(format="remote_arm: %(message)s")
    try:
        print(json.dumps(drive(args), indent=2))
    except (MotedgeError, OSError) as error:
        print(error, file=sys.stderr)
        return getattr(error, "exit_code", 3)
    except KeyboardInterrupt:
        # Before the first chunk came: there is nothing to report
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
