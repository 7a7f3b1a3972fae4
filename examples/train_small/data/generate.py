"""Records drives of the expert as shards road-00000.npz, road-00001.npz, ...

    python -m examples.train_small.data.generate --out road --episodes 400 --workers 4

Needs numpy, gymnasium, Box2D and pygame only. Interrupted and started again, it makes the shards that are missing.
The same settings give the same shards on one machine, in whatever order the workers take them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from examples.train_small.data.episode import Episode, record
from examples.train_small.road.instructions import TASKS
from examples.train_small.road.simulator import Simulator
from examples.train_small.road.versions import check_behaviour, check_versions, installed
from motedge.errors import DataError, MotedgeError, UsageError
from motedge.files import atomic_open

SCHEMA = "train_small.road/v1"
SETTINGS = "road.json"
# Seeds of roads: what is trained on, what is looked at during training, and what is driven are never the same roads
SEEDS = {"train": range(0, 100_000), "held-out": range(100_000, 200_000), "drive": range(200_000, 300_000)}


@dataclass(frozen=True)
class Settings:
    """What decides the content."""

    episodes: int
    seconds: float
    first_seed: int
    # Episodes a shard
    shard: int

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.shard < 1 or not 2 <= self.seconds <= 600:
            raise UsageError(
                "these episodes can't be recorded",
                expected="at least one episode, of 2 to 600 s, at least one a shard",
                got=f"{self.episodes} of {self.seconds:g} s, {self.shard} a shard",
            )
        last = self.first_seed + self.episodes - 1
        if not any(self.first_seed in part and last in part for part in SEEDS.values()):
            raise UsageError(
                "the seeds reach from one part into another",
                expected=", ".join(f"{name} {part.start} to {part.stop - 1}" for name, part in SEEDS.items()),
                got=f"{self.first_seed} to {last}",
                why="roads that were trained on must not be driven as unseen ones",
            )


def generate(out: Path, settings: Settings, workers: int = 1) -> list[Path]:
    """Writes what is missing in `out`; returns all shards.

    Raises:
        DataError: the folder holds shards of other settings or versions.
    """
    check_versions()
    check_behaviour()
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, settings)
    shards = [out / f"road-{number:05d}.npz" for number in range(-(-settings.episodes // settings.shard))]
    jobs = [(path, number, settings) for number, path in enumerate(shards) if not path.is_file()]
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        if workers > 1 and len(jobs) > 1:
            # Not forked: a process with threads, as one with torch, can't be
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(min(workers, len(jobs))))
            finished = pool.imap_unordered(_write_shard, jobs)
        else:
            finished = map(_write_shard, jobs)
        for done, frames in enumerate(finished, start=1):
            took_s = time.monotonic() - started
            print(f"shard {done} of {len(jobs)}: {frames} frames, {took_s:.0f} s", file=sys.stderr, flush=True)
    return shards


def _claim(out: Path, settings: Settings) -> None:
    said = {"schema": SCHEMA, "settings": asdict(settings), "versions": installed()}
    path = out / SETTINGS
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is not JSON", got=str(error), fix="remove the folder") from error
        if before != said:
            raise DataError(
                f"{out} holds other recordings", expected=said, got=before, fix="give another folder, or remove it"
            )
        return
    with atomic_open(path, "w") as file:
        file.write(json.dumps(said, indent=2) + "\n")


def _write_shard(job: tuple[Path, int, Settings]) -> int:
    path, number, settings = job
    first = number * settings.shard
    numbers = range(first, min(first + settings.shard, settings.episodes))
    simulator = Simulator()
    episodes = [record(simulator, settings.first_seed + one, settings.seconds) for one in numbers]
    simulator.close()
    arrays = pack(episodes, first)
    with atomic_open(path) as file:
        np.savez(file, **arrays)
    return len(arrays["frames"])


def pack(episodes: list[Episode], first: int) -> dict[str, np.ndarray]:
    """The arrays of a shard; see examples/train_small/data/dataset.py."""
    counts = [len(one.frames) for one in episodes]
    behaviour = np.repeat([one.behaviour for one in episodes], counts).astype(np.int32)
    plans_all = np.concatenate([one.plans_all for one in episodes])
    return {
        "frames": np.concatenate([one.frames for one in episodes]),
        "episode": np.repeat(np.arange(first, first + len(episodes)), counts).astype(np.int32),
        "plans": plans_all[np.arange(len(behaviour)), behaviour],
        "plans_all": plans_all,
        "behaviour": behaviour,
        "task_index": np.repeat([one.task_index for one in episodes], counts).astype(np.int32),
        "tasks": np.array(TASKS),
        "poses": np.concatenate([one.poses for one in episodes]),
        "speed": np.concatenate([one.speed for one in episodes]),
        "seeds": np.array([one.seed for one in episodes], np.int64),
    }


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder of the shards")
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each episode (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first road (default: %(default)s)")
    parser.add_argument("--shard", type=int, default=20, help="episodes a file (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    try:
        settings = Settings(arguments.episodes, arguments.seconds, arguments.seed, arguments.shard)
        generate(arguments.out, settings, arguments.workers)
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
