"""Drives a MuJoCo arm in real time by a policy server, as DROID's robots are: three cameras, seven joints, a gripper.

    motedge serve bundle                                                     # in one terminal
    python -m examples.mujoco_arm --server ws://127.0.0.1:8000 --film arm.webp      # in another

Every action passes the safety envelope. With a policy of random weights the arm waves, and the envelope has to do; what
counts then is the loop: chunks in time, held actions, interventions. Needs motedge[client,sim,images] and OpenGL.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from examples.film_file import check_format, write_film
from examples.mujoco_arm.arm import RENDERERS, Cameras, SimulatedArm
from examples.mujoco_arm.loop import RATE_HZ, ArmLoop
from examples.rerun_log import RerunLog
from motedge.client import (
    MonotonicClock,
    RemoteOptions,
    RemotePolicy,
    SimulatedClock,
    SimulatedWorker,
    StreamOptions,
    read_token,
)
from motedge.errors import MotedgeError, UsageError
from motedge.files import require_writable, write_json

EXPECT = {"embodiment": "droid_lerobot", "rate_hz": RATE_HZ}
_FIELDS = (*(f"joint_{number}" for number in range(7)), "gripper")
_FILM, _BAR = (360, 640), 56


def main() -> int:
    """Prints the report as JSON; returns an exit code."""
    args = _parser().parse_args()
    # What the client has to say while it waits for the server
    logging.basicConfig(format="mujoco_arm: %(message)s")
    try:
        for path in (args.out, args.film, args.rerun):
            if path is not None:
                require_writable(path)
        if args.film is not None:
            check_format(args.film)
        if not (math.isfinite(args.seconds) and 0 < args.seconds <= 3600):
            raise UsageError("--seconds", expected="up to 3600", got=args.seconds)
        if args.film_every < 1:
            raise UsageError("--film-every", expected="1 or more", got=args.film_every)
        token = None if args.token_file is None else read_token(args.token_file)
        options = RemoteOptions(timeout_s=args.timeout_s, connect_timeout_s=args.connect_timeout_s)
        arm = SimulatedArm()
        with (
            RerunLog(args.rerun, "motedge_mujoco_arm") as log,
            RemotePolicy(args.server, token=token, expect=EXPECT, options=options, tls_ca=args.tls_ca) as policy,
        ):
            report = _drive(args, arm, policy, log)
    except (MotedgeError, OSError) as error:
        print(f"mujoco_arm: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 3)
    print(json.dumps(report, indent=2))
    return 130 if report["ended"] == "interrupted" else 0


def _drive(args: argparse.Namespace, arm: SimulatedArm, policy: RemotePolicy, log: RerunLog) -> dict[str, Any]:
    options = StreamOptions(
        rate_hz=RATE_HZ, horizon=args.horizon, prefetch_lead_s=args.lead_s, on_empty="hold", on_error="report"
    )
    simulated = args.simulated_latency_s is not None
    clock: Any = SimulatedClock() if simulated else MonotonicClock()
    loop = ArmLoop(policy, arm, args.prompt, options, clock, args.cameras)
    loop.run(args.seconds, SimulatedWorker(clock, lambda number: args.simulated_latency_s) if simulated else None)
    report = loop.report()
    if args.out is not None:
        write_json(args.out, report)
    if args.rerun is not None:
        _log(log, loop)
    if args.film is not None and loop.moments:
        cameras = Cameras(arm, _FILM, args.cameras)
        try:
            write_film(args.film, _frames(cameras, loop, args), RATE_HZ / args.film_every)
        finally:
            cameras.close()
    return report


def _frames(cameras: Cameras, loop: ArmLoop, args: argparse.Namespace) -> Iterator[Image.Image]:
    """The camera over the right shoulder, and what became of each action."""
    large, small = ImageFont.load_default(18), ImageFont.load_default(13)
    for moment in loop.moments[:: args.film_every]:
        made = Image.new("RGB", (_FILM[1], _FILM[0] + _BAR), (24, 27, 31))
        made.paste(Image.fromarray(cameras.picture_of(moment.positions, "right")), (0, 0))
        pen = ImageDraw.Draw(made)
        pen.text((12, _FILM[0] + 6), f"\u201c{args.prompt}\u201d", (255, 255, 255), large)
        words = f"{moment.time_s:5.1f} s    action {moment.action}    {moment.verdict} by the envelope"
        pen.text((12, _FILM[0] + 32), words, (176, 184, 192), small)
        yield made


def _log(log: RerunLog, loop: ArmLoop) -> None:
    for asked in loop.asked:
        log.at(asked.time_s)
        for name, picture in asked.pictures.items():
            log.picture(f"cameras/{name}", picture)
        log.numbers("chunk", {"round_trip_ms": asked.round_trip_ms, "infer_ms": asked.infer_ms})
    for moment in loop.moments:
        log.at(moment.time_s)
        for entity, row in (("measured", moment.state), ("wanted", moment.wanted), ("commanded", moment.commanded)):
            log.numbers(entity, dict(zip(_FIELDS, row)))
        flags = {"held": moment.action != "fresh", "changed": moment.verdict != "passed"}
        log.numbers("envelope", {name: float(np.float64(flag)) for name, flag in flags.items()})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.mujoco_arm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", default="ws://127.0.0.1:8000", metavar="URL")
    parser.add_argument("--token-file", type=Path, help="the secret that the server asks for")
    parser.add_argument("--tls-ca", help="of the authority of the server's certificate (wss://)")
    parser.add_argument("--timeout-s", type=float, default=5.0, help="of a request (default %(default)s)")
    parser.add_argument("--connect-timeout-s", type=float, default=300.0, help="for a server that still loads")
    parser.add_argument("--prompt", default="put the red cube into the cup")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--horizon", type=int, default=24, help="rows executed of each chunk (default 24)")
    parser.add_argument("--lead-s", type=float, default=0.8, help="how long before their end the next is asked for")
    text = "on a simulated clock, each chunk after so long: faster than real time"
    parser.add_argument("--simulated-latency-s", type=float, metavar="S", help=text)
    text = "opengl: MuJoCo's own renderer (default); drawn: simpler, without OpenGL"
    parser.add_argument("--cameras", choices=RENDERERS, default="opengl", help=text)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the report, as JSON")
    parser.add_argument("--film", type=Path, metavar="FILE", help=".mp4, .webp or .gif")
    parser.add_argument("--film-every", type=int, default=1, metavar="N", help="periods from picture to picture")
    parser.add_argument("--rerun", type=Path, metavar="FILE.rrd", help="a log for the Rerun viewer: motedge[rerun]")
    return parser


if __name__ == "__main__":
    sys.exit(main())
