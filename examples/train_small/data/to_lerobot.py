"""Recorded drives as a LeRobot v3 data set: for LeRobot's own tools, and for `motedge quantize --calibration`.

    python -m examples.train_small.data.to_lerobot --shards road --out road_lerobot

| feature | what |
|---|---|
| observation.images.ego | pictures, h264 at full colour resolution |
| action | fp32 [9]: the clean plan's next pose seen from this one, as embodiment av has it |
| plan | fp32 [16, 9]: the whole clean plan from this frame |
| world.pose, world.speed | fp32 [3], [1]: x, y in m, yaw in rad, and m/s; the driver does not see them |
| task_index | the instruction |

Plans for the other behaviours (`plans_all`) stay in the shards: one frame of a LeRobot data set has one task.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from examples.train_small.data.dataset import RoadData, read_shard
from examples.train_small.data.lerobot_writer import LeRobotWriter
from examples.train_small.road.expert import RATE_HZ
from motedge.checkpoint.staging import staged_folder
from motedge.errors import DataError, MotedgeError
from motedge.runtime.policy.embodiments import find_embodiment

CAMERA = "observation.images.ego"


def convert(shards: Path, out: Path) -> int:
    """Writes the data set; the folder appears whole or not at all. One shard is in memory at a time.

    Returns:
        The number of frames.

    Raises:
        DataError: no shard, a damaged one, one with other tasks or episodes twice, or what `RoadData` refuses.
        UsageError: `out` is there already.
        HostError: the disk is full.
        MissingPackageError: pyarrow or PyAV is not installed.
    """
    paths = sorted(shards.glob("road-*.npz"))
    if not paths:
        raise DataError(
            f"there are no recordings in {shards}",
            expected="road-00000.npz, ...",
            fix="python -m examples.train_small.data.generate --out DIR",
        )
    fields = list(find_embodiment("av").find_layout().fields)
    names = {"action": fields, "plan": None, "world.pose": ["x", "y", "yaw"], "world.speed": ["speed"]}
    frames, before = 0, -1
    with staged_folder(out) as root:
        first = read_shard(paths[0])
        writer = LeRobotWriter(root, CAMERA, round(RATE_HZ), first.tasks, names)
        try:
            for path in paths:
                data = first if path is paths[0] else read_shard(path)
                if data.tasks != first.tasks:
                    raise DataError(f"{path} has other tasks", expected=first.tasks, got=data.tasks)
                for number, part in _episodes(data):
                    if number <= before:
                        raise DataError(f"{path}: episode {number} is there twice", expected=f"{before + 1} or later")
                    before = number
                    writer.add(data.frames[part], data.task_index[part], _columns(data, part))
                    frames += part.stop - part.start
            writer.close()
        finally:
            writer.abandon()
    return frames


def _episodes(data: RoadData) -> Iterator[tuple[int, slice]]:
    starts = np.flatnonzero(np.diff(data.episode, prepend=data.episode[0] - 1))
    for start, stop in zip(starts, [*starts[1:], len(data.episode)]):
        yield int(data.episode[start]), slice(int(start), int(stop))


def _columns(data: RoadData, part: slice) -> dict[str, np.ndarray]:
    return {
        "action": data.plans[part, 0],
        "plan": data.plans[part],
        "world.pose": data.poses[part],
        "world.speed": data.speed[part, None],
    }


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True, type=Path, help="folder of road-*.npz")
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    arguments = parser.parse_args()
    try:
        frames = convert(arguments.shards, arguments.out)
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{arguments.out}: {frames} frames")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
