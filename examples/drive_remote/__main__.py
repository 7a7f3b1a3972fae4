"""Drives a simulated car in real time by a policy server: pictures over the socket, trajectories back.

    motedge export examples/small_road --out road --shape-set examples/train_small/shapes.toml
    motedge serve road --steps 4 --shift 5 --guidance 1                # in one terminal
    python -m examples.drive_remote --server ws://127.0.0.1:8000 --film drive.webp    # in another

The car drives on while the policy thinks: a chunk of 16 rows at 10 Hz is asked for every 4, and what comes late takes
over late. Without chunks it brakes when the last one's rows are over. Several instructions are driven one after the
other on one road. Needs motedge[client,drive,images]; films as mp4 need motedge[video].
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

# No sound card, and no window
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import numpy as np

from examples.drive_remote.film import FilmMaker, frames_of, write_picture
from examples.drive_remote.loop import DrivingLoop, Leg
from examples.drive_remote.report import drive_report, summary
from examples.drive_remote.vehicle import Vehicle
from examples.film_file import check_format, write_film
from examples.rerun_log import RerunLog
from examples.train_small.road.camera import CAR_AT, METRES_A_PIXEL
from examples.train_small.road.expert import RATE_HZ, planar_trajectory
from examples.train_small.road.instructions import BEHAVIOURS, CANONICAL, behaviour_of
from examples.train_small.road.versions import check_versions
from motedge.client import MonotonicClock, RemoteOptions, RemotePolicy, SimulatedClock, SimulatedWorker, read_token
from motedge.errors import MotedgeError, UsageError
from motedge.files import require_writable, write_json

# What the tracker and the sampler's training mean by a chunk
EXPECT = {"embodiment": "av", "rate_hz": 10.0}


def main() -> int:
    """Prints the report; returns 0 if every leg succeeded, 1 if not, or an error's exit code."""
    args = _parser().parse_args()
    # What the client has to say while it waits for the server
    logging.basicConfig(format="drive_remote: %(message)s")
    try:
        legs = _legs(args)
        for path in (args.out, args.film, args.picture, args.rerun):
            if path is not None:
                require_writable(path)
        if args.film is not None:
            check_format(args.film)
        check_versions()
        token = None if args.token_file is None else read_token(args.token_file)
        options = RemoteOptions(timeout_s=args.timeout_s, connect_timeout_s=args.connect_timeout_s)
        with (
            RerunLog(args.rerun, "motedge_drive_remote") as log,
            RemotePolicy(args.server, token=token, expect=EXPECT, options=options, tls_ca=args.tls_ca) as policy,
        ):
            report = _drive(args, legs, policy, log)
    except (MotedgeError, OSError) as error:
        print(f"drive_remote: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 3)
    print(json.dumps(report, indent=2) if args.json else summary(report))
    if report["ended"] == "interrupted":
        return 130
    return 0 if report["success"] else 1


def _drive(args: argparse.Namespace, legs: list[Leg], policy: RemotePolicy, log: RerunLog) -> dict[str, Any]:
    vehicle = Vehicle(args.road)
    try:
        loop = DrivingLoop(policy, vehicle, legs, every=args.every, seed=args.road)
        try:
            if args.simulated_latency_s is None:
                loop.run(MonotonicClock())
            else:
                clock = SimulatedClock()
                loop.run(clock, SimulatedWorker(clock, lambda number: args.simulated_latency_s))
        except KeyboardInterrupt:
            if not loop.log.moments:
                raise
            loop.log.ended = "interrupted"
        report = drive_report(loop.log, legs, vehicle.simulator.track, args.road, loop.options, policy.metadata)
        if args.out is not None:
            write_json(args.out, report)
        if args.rerun is not None:
            _log(log, loop)
        maker = FilmMaker(vehicle.simulator.env, [leg.instruction for leg in legs])
        if args.film is not None:
            write_film(args.film, frames_of(maker, loop.log, args.film_every), RATE_HZ / args.film_every)
        if args.picture is not None:
            write_picture(args.picture, maker, loop.log)
        return report
    finally:
        vehicle.close()


def _log(log: RerunLog, loop: DrivingLoop) -> None:
    """The pictures that the model was given with its plans on them, and curves."""
    last = -1
    for moment in loop.log.moments:
        plan = moment.plan
        log.at(moment.time_s)
        log.numbers("car", {"speed_m_s": moment.speed_m_s, "right_of_middle_m": moment.lateral_m})
        log.numbers("chunk", {"age_s": moment.time_s - plan.sight.time_s, "held": moment.kind != "fresh"})
        if plan.sight.number != last:
            last = plan.sight.number
            log.picture("model/sees", plan.sight.picture)
            right, ahead = planar_trajectory(plan.rows)[:, :2].T / METRES_A_PIXEL
            log.line("model/sees/plan", np.stack([CAR_AT[0] + right, CAR_AT[1] - ahead], -1))
            log.numbers("chunk", {"round_trip_ms": plan.round_trip_ms, "infer_ms": plan.infer_ms})
            log.text("told", plan.sight.instruction)


def _legs(args: argparse.Namespace) -> list[Leg]:
    """Of the options: each instruction for so many seconds."""
    texts = args.instruction or [CANONICAL["left"]]
    legs = [Leg(CANONICAL.get(text, text), args.seconds) for text in texts]
    for leg in legs:
        behaviour_of(leg.instruction)
    if args.film_every < 1:
        raise UsageError("--film-every", expected="1 or more", got=args.film_every)
    if not 1 <= args.every <= 16:
        raise UsageError("--every", expected="1 to 16 rows: a chunk has no more", got=args.every)
    return legs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.drive_remote",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--server", default="ws://127.0.0.1:8000", metavar="URL")
    parser.add_argument("--token-file", type=Path, help="the secret that the server asks for")
    parser.add_argument("--tls-ca", help="of the authority of the server's certificate (wss://)")
    parser.add_argument("--timeout-s", type=float, default=2.0, help="of a request (default %(default)s)")
    parser.add_argument("--connect-timeout-s", type=float, default=60.0, help="for a server that still loads")
    words = f"{', '.join(BEHAVIOURS)}, or one of the trained texts; several are driven in turn (default: left)"
    parser.add_argument("--instruction", action="append", metavar="TEXT", help=words)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each instruction (default %(default)s)")
    parser.add_argument("--road", type=int, default=200_000, metavar="SEED", help="training has seen none over 199999")
    parser.add_argument("--every", type=int, default=4, metavar="ROWS", help="from one chunk to the next (default 4)")
    text = "drive on a simulated clock, each chunk after so long: repeatable, and faster than real time"
    parser.add_argument("--simulated-latency-s", type=float, metavar="S", help=text)
    parser.add_argument("--json", action="store_true", help="print the whole report")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the whole report, as JSON")
    parser.add_argument("--film-every", type=int, default=1, metavar="N", help="periods from picture to picture")
    parser.add_argument("--film", type=Path, metavar="FILE", help=".mp4, .webp or .gif")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="one moment of it")
    parser.add_argument("--rerun", type=Path, metavar="FILE.rrd", help="a log for the Rerun viewer: motedge[rerun]")
    return parser


if __name__ == "__main__":
    sys.exit(main())
