"""Recorded drives, read back and looked over: what a training may rely on.

| array | type, shape | what |
|---|---|---|
| frames | uint8 [N, 96, 96, 3] | pictures at 10 Hz, episode after episode |
| episode | int32 [N] | number of the episode, never falling |
| plans | fp32 [N, 16, 9] | the clean plan for the episode's own behaviour |
| plans_all | fp32 [N, 4, 16, 9] | the clean plan for each behaviour |
| behaviour | int32 [N] | place in `BEHAVIOURS` |
| task_index, tasks | int32 [N], str [K] | the instruction in words |
| poses, speed | fp32 [N, 3], [N] | x, y, yaw and m/s: for looking at errors, not for training |
| seeds | int64 [E] | the roads' seeds |
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.train_small.road.expert import ROWS
from examples.train_small.road.instructions import BEHAVIOURS, behaviour_of
from motedge.errors import DataError

SIDE = 96
# Farther than this in a tenth of a second no car goes, and a column of a rotation is never longer than 1
_FARTHEST = 10.0
_TYPES = {
    "frames": (np.uint8, (SIDE, SIDE, 3)),
    "episode": (np.int32, ()),
    "plans": (np.float32, (ROWS, 9)),
    "plans_all": (np.float32, (len(BEHAVIOURS), ROWS, 9)),
    "behaviour": (np.int32, ()),
    "task_index": (np.int32, ()),
    "poses": (np.float32, (3,)),
    "speed": (np.float32, ()),
}


@dataclass(frozen=True, eq=False)
class RoadData:
    """All frames of all episodes; see the table above.

    Raises:
        DataError: on creation, what a training must not see: NaN, other sizes, an unknown task.
    """

    frames: NDArray[np.uint8]
    episode: NDArray[np.int32]
    plans: NDArray[np.float32]
    plans_all: NDArray[np.float32]
    behaviour: NDArray[np.int32]
    task_index: NDArray[np.int32]
    tasks: tuple[str, ...]
    poses: NDArray[np.float32]
    speed: NDArray[np.float32]
    seeds: NDArray[np.int64]
    # Where it came from, for messages
    name: str = "road data"

    def __post_init__(self) -> None:
        for name, (kind, shape) in _TYPES.items():
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != kind or array.shape != (len(self.frames), *shape):
                raise DataError(
                    f"{self.name}: {name} has the wrong type or shape",
                    expected=f"{np.dtype(kind).name} {[len(self.frames), *shape]}",
                    got=f"{array.dtype.name} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array),
                )
        if not len(self.frames):
            raise DataError(f"{self.name} is empty", expected="at least one frame")
        if (np.diff(self.episode) < 0).any():
            raise DataError(f"{self.name}: episodes are mixed up", expected="one after the other")
        self._check_numbers()
        self._check_tasks()

    def clips(self, frames: int = ROWS + 1) -> NDArray[np.int64]:
        """First frames of all clips of so many frames that lie within one episode."""
        last = len(self.frames) - frames
        starts = np.arange(max(last + 1, 0))
        return starts[self.episode[starts] == self.episode[starts + frames - 1]]

    def _check_numbers(self) -> None:
        for name in ("plans", "plans_all", "poses", "speed"):
            array = getattr(self, name)
            bad = ~np.isfinite(array)
            if name.startswith("plans"):
                bad |= np.abs(array) > _FARTHEST
            if bad.any():
                frame = int(np.argwhere(bad)[0][0])
                raise DataError(
                    f"{self.name}: {name} of frame {frame}, episode {self.episode[frame]}, is no number to train on",
                    expected=f"finite{f', at most {_FARTHEST:g}' if name.startswith('plans') else ''}",
                    got=np.asarray(array[frame])[bad[frame]].ravel()[0],
                    why="one NaN in a batch ends a training",
                    fix="record that shard again",
                )

    def _check_tasks(self) -> None:
        low, high = int(self.task_index.min()), int(self.task_index.max())
        if low < 0 or high >= len(self.tasks):
            raise DataError(
                f"{self.name}: unknown task", expected=f"task_index 0 to {len(self.tasks) - 1}", got=f"{low} to {high}"
            )
        asked = np.array([BEHAVIOURS.index(behaviour_of(text)) for text in self.tasks])
        wrong = np.flatnonzero(asked[self.task_index] != self.behaviour)
        if len(wrong):
            at = int(wrong[0])
            raise DataError(
                f"{self.name}: frame {at} is driven otherwise than it was told",
                expected=f"{self.tasks[self.task_index[at]]!r}: behaviour {asked[self.task_index[at]]}",
                got=f"behaviour {self.behaviour[at]}",
            )


def read_shards(folder: Path | str) -> RoadData:
    """All road-*.npz of a folder, in order.

    Raises:
        DataError: no shard, a damaged one, one with other tasks, or what `RoadData` refuses.
    """
    root = Path(folder)
    paths = sorted(root.glob("road-*.npz"))
    if not paths:
        raise DataError(
            f"there are no recordings in {root}",
            expected="road-00000.npz, ...",
            fix="python -m examples.train_small.data.generate --out DIR",
        )
    parts = [read_shard(path) for path in paths]
    for path, part in zip(paths, parts):
        if part.tasks != parts[0].tasks:
            raise DataError(f"{path} has other tasks", expected=parts[0].tasks, got=part.tasks)
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (*_TYPES, "seeds")}
    return RoadData(**joined, tasks=parts[0].tasks, name=root.name)


def read_shard(path: Path) -> RoadData:
    """One shard.

    Raises:
        DataError: damaged, an array missing, or what `RoadData` refuses.
    """
    wanted = [field.name for field in fields(RoadData) if field.name != "name"]
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in wanted if name not in file.files]
            if missing:
                raise DataError(f"{path}: there is no {missing[0]}", expected=", ".join(wanted), got=file.files)
            arrays = {name: file[name] for name in wanted}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read", got=str(error), fix="remove it and generate again") from error
    arrays["tasks"] = tuple(str(text) for text in arrays["tasks"])
    return RoadData(**arrays, name=path.name)
