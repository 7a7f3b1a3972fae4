"""Replays an episode of a LeRobot data set of DROID against a policy server: what would the policy have done?

    motedge serve bundle                                                         # in one terminal
    python -m examples.lerobot_replay DATASET --server ws://127.0.0.1:8000       # in another, in the repository's root

At every horizon the server is sent the recorded observation, and its chunk is compared with what was recorded: the
open-loop error, beside that of an arm that stands still. A report as JSON; --plot draws it, --rerun logs it. Open-loop
error does not say whether a policy succeeds. Needs motedge[client,quant], and with --plot [plot].
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np

from examples.lerobot_replay.comparison import Comparison
from examples.lerobot_replay.plot import plot, require_matplotlib
from examples.lerobot_replay.recorded import REFERENCES, RecordedEpisode, read_episode
from examples.rerun_log import RerunLog
from motedge.client import RemoteChunk, RemoteOptions, RemotePolicy, droid_observation, read_token
from motedge.client.stream_report import Durations
from motedge.errors import DataError, MotedgeError, UsageError
from motedge.files import require_writable, write_json
from motedge.quant.datasets.dataset import Moment
from motedge.quant.datasets.lerobot import LeRobotDataset

SCHEMA = "motedge.lerobot_replay/v1"
EXPECT = {"embodiment": "droid_lerobot"}
_SERVER = ("server", "family", "variant", "checkpoint", "bundle_sha256")


class Replay:
    """One episode against one server."""

    def __init__(self, args: argparse.Namespace, log: RerunLog) -> None:
        """Reads the episode's tables.

        Raises:
            DataError: see `read_episode` and `LeRobotDataset`.
        """
        self._args, self._log = args, log
        self._dataset = LeRobotDataset(args.dataset, args.instruction)
        self.episode: RecordedEpisode = read_episode(self._dataset, args.episode, args.reference)
        # Frames of the chunks, and what each took
        self.frames: list[int] = []
        self.chunks: list[dict[str, Any]] = []
        self._round_trip, self._infer = Durations(), Durations()
        self.comparison: Optional[Comparison] = None
        self.metadata: Mapping[str, Any] = {}

    def run(self, policy: RemotePolicy) -> None:
        """Asks at every horizon; what was asked stays if it ends early.

        Raises:
            DataError: a frame that can't be read.
            RemoteError, RemoteTimeoutError, ConnectionFailedError, MetadataError: as `RemotePolicy.act`.
        """
        self.metadata, times_s = policy.metadata, self.episode.times_s
        rate_hz = float(self.metadata["rate_hz"])
        self.comparison = Comparison(tuple(self.metadata["action_fields"]))
        every = self._args.every or int(self.metadata["action_rows"])
        for frame in range(0, len(times_s), every)[: self._args.limit]:
            if times_s[frame] + 1 / rate_hz > self.episode.due_s[-1] + 1e-6:
                break
            seen = self._dataset.observation(Moment(self._args.episode, frame))
            sent = droid_observation(seen.joint_position, seen.gripper_position, seen.instruction, **seen.views)
            self._note(frame, seen.views, policy.act(sent, seed=self._args.seed))

    def report(self, ended: str) -> dict[str, Any]:
        """JSON form."""
        rate_hz = float(self.metadata["rate_hz"])
        same = abs(self.episode.rate_hz / rate_hz - 1) < 0.01
        resampled = () if same else (f"recorded at {self.episode.rate_hz:.3g} Hz, compared at {rate_hz:g} Hz",)
        return {
            "schema": SCHEMA,
            "dataset": {
                "name": self._dataset.name,
                "kind": self._dataset.kind,
                "episode": self._args.episode,
                "rows": len(self.episode.times_s),
                "rate_hz": round(self.episode.rate_hz, 6),
                "notes": [*dict.fromkeys((*self._dataset.notes, *self.episode.notes, *resampled))],
            },
            "server": {key: self.metadata.get(key) for key in _SERVER},
            "reference": self.episode.reference,
            "seed": self._args.seed,
            "ended": ended,
            "asked": len(self.frames),
            **(self.comparison.to_dict(rate_hz) if self.comparison and self.frames else {}),
            "round_trip_ms": self._round_trip.summary_ms(),
            "infer_ms": self._infer.summary_ms(),
            "chunks": self.chunks,
        }

    def draw(self, path: Path) -> None:
        """The picture of it."""
        if self.comparison is not None and self.frames:
            asked_s = self.episode.times_s[self.frames]
            plot(path, self.episode, asked_s, self.comparison, float(self.metadata["rate_hz"]))

    def _note(self, frame: int, views: Mapping[str, Any], chunk: RemoteChunk) -> None:
        check_chunk(chunk)
        start_s, rows = float(self.episode.times_s[frame]), np.asarray(chunk.actions, np.float64)
        due_s = start_s + (np.arange(len(rows)) + 1 + chunk.first_row) / chunk.rate_hz
        recorded = self.episode.actions_at(due_s)
        error = self.comparison.add(rows, recorded, self.episode.states[frame]) if self.comparison else 0.0
        infer_ms = float(chunk.server_timing.get("infer_ms", 0.0))
        self.frames.append(frame)
        self._round_trip.add(chunk.round_trip_ms / 1e3)
        self._infer.add(infer_ms / 1e3)
        self.chunks.append({"frame": frame, "joints_mean_rad": error, "round_trip_ms": round(chunk.round_trip_ms, 3)})
        print(f"{start_s:7.2f} s  {error:.4f} rad  {chunk.round_trip_ms:7.1f} ms", file=sys.stderr)
        self._log.at(start_s)
        for name, picture in views.items():
            self._log.picture(f"cameras/{name}", picture)
        self._log.numbers("timing", {"round_trip_ms": chunk.round_trip_ms, "infer_ms": infer_ms})
        for row in range(len(rows)):
            self._log.at(float(due_s[row]))
            self._log.numbers("predicted", dict(zip(chunk.field_names, rows[row])))
            if np.isfinite(recorded[row]).all():
                self._log.numbers("recorded", dict(zip(chunk.field_names, recorded[row])))


def check_chunk(chunk: RemoteChunk) -> None:
    """Whether a chunk answers the observation that it was asked with, is of eight fields, the joints first, and whole.

    Raises:
        DataError: it does not, or is not.
    """
    if chunk.kind != "fresh":
        raise DataError(
            f"the server answered with a {chunk.kind} chunk",
            expected="one made from the recorded observation",
            why="no setting of the sampler met the server's deadline, and these rows count from an earlier observation",
            fix="serve without --deadline-ms to replay",
        )
    if chunk.actions.shape[1] != 8 or not np.isfinite(chunk.actions).all():
        raise DataError(
            "the server's chunk can't be compared", expected="finite rows of 8", got=list(chunk.actions.shape)
        )


def main() -> int:
    """Prints the report as JSON; returns an exit code."""
    args = _parser().parse_args()
    # What the client has to say while it waits for the server
    logging.basicConfig(format="lerobot_replay: %(message)s")
    try:
        for path in (args.out, args.plot, args.rerun):
            if path is not None:
                require_writable(path)
        if args.plot is not None:
            require_matplotlib()
        if args.every < 0 or (args.limit is not None and args.limit < 1):
            raise UsageError("nothing would be asked", expected="--every 0 or more, --limit 1 or more")
        token = None if args.token_file is None else read_token(args.token_file)
        options = RemoteOptions(timeout_s=args.timeout_s, connect_timeout_s=args.connect_timeout_s)
        with RerunLog(args.rerun, "motedge_lerobot_replay") as log:
            replay = Replay(args, log)
            with RemotePolicy(args.server, token=token, expect=EXPECT, options=options, tls_ca=args.tls_ca) as policy:
                return _run(replay, policy, args)
    except (MotedgeError, OSError) as error:
        print(f"lerobot_replay: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 3)


def _run(replay: Replay, policy: RemotePolicy, args: argparse.Namespace) -> int:
    """Replays, and reports what there is, also of a replay that ended early."""
    ended, code = "at the end", 0
    try:
        replay.run(policy)
    except KeyboardInterrupt:
        ended, code = "interrupted", 130
    except MotedgeError as error:
        if not replay.frames:
            raise
        print(f"lerobot_replay: {error}", file=sys.stderr)
        ended, code = f"{type(error).__name__}: {error.what}", error.exit_code
    report = replay.report(ended)
    print(json.dumps({key: value for key, value in report.items() if key not in ("chunks", "by_row")}, indent=2))
    if args.out is not None:
        write_json(args.out, report)
    if args.plot is not None:
        replay.draw(args.plot)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.lerobot_replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder with data/ and videos/")
    parser.add_argument("--server", default="ws://127.0.0.1:8000", metavar="URL")
    parser.add_argument("--token-file", type=Path, help="the secret that the server asks for")
    parser.add_argument("--tls-ca", help="of the authority of the server's certificate (wss://)")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="of a request (default %(default)s)")
    parser.add_argument("--connect-timeout-s", type=float, default=300.0, help="for a server that still loads")
    parser.add_argument("--episode", default="0", metavar="N", help="default 0")
    parser.add_argument("--instruction", help="what to do; needed where the data set's own task text is empty")
    parser.add_argument("--reference", choices=REFERENCES, default="auto", help="what to compare with (default auto)")
    parser.add_argument("--every", type=int, default=0, metavar="ROWS", help="from one request to the next; 0: a chunk")
    parser.add_argument("--limit", type=int, metavar="N", help="requests at most")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the whole report, as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a picture of predicted and recorded actions")
    parser.add_argument("--rerun", type=Path, metavar="FILE.rrd", help="a log for the Rerun viewer: motedge[rerun]")
    return parser


if __name__ == "__main__":
    sys.exit(main())
